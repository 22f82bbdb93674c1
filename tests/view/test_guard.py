"""Who may talk to the page."""

import pytest

from affinitynet.view.guard import host_name


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1:8765", "127.0.0.1"),
        ("LocalHost:1", "localhost"),
        ("[::1]", "[::1]"),
        ("[::1]:8765", "[::1]"),
        ("hub.example.org", "hub.example.org"),
        ("127.0.0.1:evil", None),
        ("127.0.0.1:80:80", None),
        ("::1", None),
        ("a@127.0.0.1", None),
        ("127.0.0.1/..", None),
        ("", None),
        (":80", None),
    ],
)
def test_the_name_of_a_host(host: str, name: str | None) -> None:
    assert host_name(host) == name
