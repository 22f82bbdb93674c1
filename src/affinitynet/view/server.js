// What the page asks its server; every address is relative, so it works behind a proxy too.

let open = 0; // requests that wait for their answer

async function ask(path, options) {
  let answer;
  document.body.ariaBusy = String(++open > 0);
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer: is affinitynet view still running?");
  } finally {
    document.body.ariaBusy = String(--open > 0);
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new Error(said.error || `the server answered ${answer.status}`);
}

export async function getJson(path) {
  return (await ask(path)).json();
}

export async function postJson(path, body) {
  return (await ask(path, { method: "POST", body: JSON.stringify(body) })).json();
}

export async function putBytes(path, bytes) {
  return (await ask(path, { method: "PUT", body: bytes })).json();
}

// Maps as {count, height, width, data}, data of Uint8 or Uint16; null where there are none.
export async function getPlanes(path, body) {
  const options = body ? { method: "POST", body: JSON.stringify(body) } : undefined;
  const answer = await ask(path, options);
  if (answer.status === 204) return null;
  const [count, height, width] = answer.headers.get("x-shape").split(",").map(Number);
  const buffer = await answer.arrayBuffer();
  const wide = answer.headers.get("x-type") === "uint16";
  const data = wide ? new Uint16Array(buffer) : new Uint8Array(buffer);
  return { count, height, width, data, stride: Number(answer.headers.get("x-stride")) };
}

// Runs `work` for the newest arguments only: while one call is under way, later ones wait, and
// of these the last one alone is carried out. So a dragged slider never queues up work.
export function newest(work) {
  let busy = false;
  let waiting = null;
  return async function run(...given) {
    if (busy) {
      waiting = given;
      return;
    }
    busy = true;
    try {
      for (let next = given; next; ) {
        waiting = null;
        await work(...next);
        next = waiting;
      }
    } finally {
      busy = false;
    }
  };
}
