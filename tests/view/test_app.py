"""The page's server: what it answers, whom it refuses, and that no path of a client is opened."""

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affinitynet.data import read_labels
from affinitynet.data.corrections import correction_file
from affinitynet.data.trust import read_trust
from affinitynet.run_folder.artifacts import PSEUDO
from affinitynet.run_folder.recipe import Recipe
from affinitynet.view.deciding import Decider
from affinitynet.view.guard import guarded
from affinitynet.view.viewed import Viewed

pytest.importorskip("starlette", reason="the extra view is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs httpx")

from starlette.testclient import TestClient

from affinitynet.view.app import STATIC, make_app

TOKEN = "secret"


def client_of(viewed: Viewed, *hosts: str) -> TestClient:
    app = guarded(make_app(viewed, Decider(viewed)), TOKEN, hosts)
    return TestClient(app, base_url="http://127.0.0.1:8765")


@pytest.fixture
def client(viewed: Viewed) -> Iterator[TestClient]:
    with client_of(viewed) as client:
        yield client


def get(client: TestClient, path: str) -> Any:
    return client.get(f"/{TOKEN}{path}")


def planes(answer: Any) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    shape = [int(n) for n in answer.headers["x-shape"].split(",")]
    return np.frombuffer(answer.content, np.dtype(answer.headers["x-type"])).reshape(shape)


def test_the_page_and_its_parts(client: TestClient) -> None:
    for name in STATIC:
        answer = get(client, f"/{name}")
        assert answer.status_code == 200
        assert answer.content
    page = get(client, "/").text
    assert "http:" not in page
    assert "https:" not in page


def test_every_answer_has_the_policy(client: TestClient) -> None:
    for path in ("/", "/run.json", "/nothing", "/layers/0/nothing"):
        headers = get(client, path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/", "/run.json", "/wrong/run.json", "/secre/", "/secret", "//"])
def test_without_the_token_there_is_nothing(client: TestClient, path: str) -> None:
    answer = client.get(f"http://127.0.0.1:8765{path}")
    assert answer.status_code == 404
    assert "open the address" in answer.json()["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:8765"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "127.0.0.1", "origin": "https://evil.example"},
        {"host": "127.0.0.1", "origin": "null"},
    ],
)
def test_other_hosts_and_origins_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.get(f"/{TOKEN}/run.json", headers=headers)
    assert answer.status_code == 403
    assert "--allow-host" in answer.json()["error"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:9", "localhost:8765", "[::1]:8765"])
def test_own_hosts_are_let_in(client: TestClient, host: str) -> None:
    assert client.get(f"/{TOKEN}/run.json", headers={"host": host}).status_code == 200


def test_a_named_host_is_let_in(viewed: Viewed) -> None:
    with client_of(viewed, "hub.example") as client:
        answer = client.get(f"/{TOKEN}/run.json", headers={"host": "hub.example:443"})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../recipe.yaml",
        "/%2e%2e/recipe.yaml",
        "/recipe.yaml",
        "/layers/0/..%2f..%2frecipe",
        "/layers/0/shards",
        "/images/..%2f0",
        "/images/0.png",
        "/thumbnails/-1",
        "/viewed.py",
    ],
)
def test_no_path_of_a_client_is_opened(client: TestClient, path: str) -> None:
    answer = get(client, path)
    assert answer.status_code in (400, 404)
    assert "seed" not in answer.text


def test_an_image_that_is_not_there(client: TestClient) -> None:
    answer = get(client, "/images/12345")
    assert answer.status_code == 400
    assert "no image 12345" in answer.json()["error"]


def test_facts_layers_and_pictures(client: TestClient, viewed: Viewed) -> None:
    facts = get(client, "/run.json").json()
    assert [image["id"] for image in facts["images"]] == [s.id for s in viewed.samples]
    assert facts["state"] == []
    assert facts["final"] == "masks"
    assert facts["trust"]
    index = next(n for n, s in enumerate(viewed.samples) if viewed.has_affinities(s))
    for layer in facts["layers"]:
        found = get(client, f"/layers/{index}/{layer['name']}")
        expected = viewed.planes(index, layer["name"])
        if expected is None:
            assert found.status_code == 204
        else:
            assert np.array_equal(planes(found), expected)
    for kind in ("images", "thumbnails"):
        assert get(client, f"/{kind}/{index}").content.startswith(b"\xff\xd8")


def test_trust_is_read_where_it_is(root: Path) -> None:
    (root / "trust.csv").write_text("image,trust,cams_walk\n0001,0.25,0.5\n", encoding="utf-8")
    with client_of(Viewed(root)) as client:
        facts = get(client, "/run.json").json()
    assert facts["trust"]
    assert {i["id"]: i["trust"] for i in facts["images"]}["0001"] == 0.25


def test_masks_that_are_made_again_have_no_trust_yet(root: Path) -> None:
    (root / "masks" / "stage.json").unlink()  # as while the final masks are made
    viewed = Viewed(root)
    facts = viewed.facts()
    assert read_trust(viewed.recipe) == {}
    assert not facts["trust"]
    assert {image["trust"] for image in facts["images"]} == {None}


def test_measures_tell_empty_masks_and_disagreement(client: TestClient, viewed: Viewed) -> None:
    index = next(n for n, s in enumerate(viewed.samples) if viewed.has_affinities(s))
    sample = viewed.samples[index]
    masks, pseudo = viewed.file(viewed.final, sample), viewed.file(PSEUDO, sample)
    shutil.copy(pseudo, masks)
    viewed.measure(index)
    (row,) = get(client, "/measures.json").json()
    labels = read_labels(pseudo)
    assert row["disagreement"] == 0
    assert row["area"] == round(float((labels > 0).mean()), 4)
    body = np.zeros_like(labels).tobytes()
    client.put(f"/{TOKEN}/corrections/{index}", content=body)
    (row,) = get(client, "/measures.json").json()
    assert (row["empty"], row["area"]) == (True, 0)


def test_a_correction_is_saved_and_taken_back(client: TestClient, viewed: Viewed) -> None:
    sample = viewed.samples[0]
    labels = np.full((64, 64), 255, np.uint8)
    labels[3:9, 5:30] = 2
    answer = client.put(f"/{TOKEN}/corrections/0", content=labels.tobytes())
    assert answer.json()["corrected"] is True
    assert any("corrections changed" in line for line in answer.json()["state"])
    assert np.array_equal(read_labels(correction_file(viewed.root, sample.id)), labels)
    assert np.array_equal(planes(get(client, "/layers/0/corrections"))[0], labels)
    answer = client.put(f"/{TOKEN}/corrections/0", content=b"\xff" * 64 * 64)
    assert answer.json() == {"corrected": False, "state": []}
    assert not correction_file(viewed.root, sample.id).exists()


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"\0" * 5, "image's size"), (b"\0" * 5000, "more than"), (b"\x09" * 4096, "label 9")],
)
def test_a_wrong_correction_is_refused(
    client: TestClient, viewed: Viewed, body: bytes, said: str
) -> None:
    answer = client.put(f"/{TOKEN}/corrections/0", content=body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]
    assert not (viewed.root / "corrections").exists()


def test_deciding_and_clicking(client: TestClient, viewed: Viewed) -> None:
    index = next(n for n, s in enumerate(viewed.samples) if viewed.has_affinities(s))
    settings = {"beta": 3, "crf": {"iterations": 1}}
    body = {"settings": settings, "draft": False}
    decider = Decider(viewed)
    expected = decider.decide(index, decider.settings(settings), draft=False)
    assert np.array_equal(planes(client.post(f"/{TOKEN}/decide/{index}", json=body))[0], expected)
    answer = client.post(f"/{TOKEN}/affinities/{index}", json={"x": 3, "y": 60, "settings": {}})
    maps = planes(answer)
    stride = int(answer.headers["x-stride"])
    assert maps[:, 60 // stride, 3 // stride].tolist()[0] == 255
    assert maps[1].max() == 255


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("decide/0", b"{"),
        ("decide/0", b"[]"),
        ("decide/0", b'{"settings": 3}'),
        ("decide/0", b"x" * 20_000),
        ("decide/0", b"[" * 9000),
        ("decide/99", b"{}"),
        ("affinities/0", b'{"x": "1", "y": 2}'),
        ("affinities/0", b'{"x": true, "y": 2}'),
        ("affinities/0", b'{"x": 1e400, "y": 2}'),
        ("affinities/0", b'{"x": -1, "y": 2}'),
        ("apply", b'{"settings": {"alpha": "NaN"}}'),
        ("apply", b'{"settings": {"keep": ["x"]}}'),
    ],
)
def test_wrong_requests_are_one_line(client: TestClient, path: str, body: bytes) -> None:
    answer = client.post(f"/{TOKEN}/{path}", content=body)
    assert answer.status_code == 400
    assert "\n" not in answer.json()["error"]


def test_settings_go_into_the_recipe(client: TestClient, viewed: Viewed) -> None:
    before = Recipe.load(viewed.root / "recipe.yaml")
    body = {"settings": {"beta": 3, "crf": {"bilateral_sxy": 44}}}
    answer = client.post(f"/{TOKEN}/apply", json=body).json()
    assert answer["changed"] == {"walk.beta": 3, "walk.crf.bilateral_sxy": 44}
    assert answer["redo"] == "propagate"
    assert answer["command"].endswith("--redo propagate")
    assert any(line.startswith("propagate: stale (walk.beta was 8") for line in answer["state"])
    after = Recipe.load(viewed.root / "recipe.yaml")
    assert after.walk.beta == 3
    crf = before.walk.crf.model_copy(update={"bilateral_sxy": 44})
    walk = before.walk.model_copy(update={"beta": 3, "crf": crf})
    assert after == before.model_copy(update={"walk": walk})
    again = client.post(f"/{TOKEN}/apply", json=body).json()
    assert (again["changed"], again["redo"]) == ({}, "")


def test_what_the_recipe_changed_meanwhile_stays(client: TestClient, viewed: Viewed) -> None:
    file = viewed.root / "recipe.yaml"
    recipe = Recipe.load(file)
    crf = recipe.walk.crf.model_copy(update={"iterations": 2})
    walk = recipe.walk.model_copy(update={"guard": not recipe.walk.guard, "crf": crf})
    file.write_text(recipe.model_copy(update={"walk": walk}).dump(), encoding="utf-8")
    body = {"settings": {"beta": 4, "crf": {"bilateral_sxy": 44}}}
    answer = client.post(f"/{TOKEN}/apply", json=body).json()
    assert answer["changed"] == {"walk.beta": 4, "walk.crf.bilateral_sxy": 44}
    crf = crf.model_copy(update={"bilateral_sxy": 44})
    expected = walk.model_copy(update={"beta": 4, "crf": crf})
    assert Recipe.load(file).walk == viewed.recipe.walk == expected
    assert answer["walk"] == get(client, "/run.json").json()["walk"]  # the sliders follow it


def test_masks_travel_compressed(client: TestClient, viewed: Viewed) -> None:
    with client.stream("GET", f"/{TOKEN}/layers/0/truth") as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    assert len(gzip.decompress(raw)) == 64 * 64
    assert json.loads(get(client, "/run.json").text)["neutral"] == 255
