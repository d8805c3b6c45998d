// Server-sent events. EventSource cannot send a token, so the stream is read here.

import { headers } from "./api.js";

const SHORTEST = 500; // milliseconds until the next try
const LONGEST = 10_000;
const QUIET = 40_000; // the API says something every 15 s

/**
 * Follow a path. `take(data)` gets each event. `tell(state)`: "live", "away", "denied".
 * While nobody sees the page, it does not follow. Answers a function that ends it.
 */
export function follow(path, take, tell) {
  let last = null;
  let pause = SHORTEST;
  let control = null;
  let timer = null;
  let ended = false;

  async function run() {
    clearTimeout(timer);
    if (ended || document.hidden) return;
    const mine = new AbortController();
    control = mine;
    try {
      const more = last === null ? {} : { "Last-Event-ID": last };
      const answer = await fetch(new URL(path, document.baseURI), { headers: headers(more), signal: mine.signal, cache: "no-store" });
      if (answer.status === 401 || answer.status === 403) {
        const said = await answer.json().catch(() => ({}));
        tell("denied", said.detail || "the token is not accepted", answer.status);
        return;
      }
      if (!answer.ok) throw new Error(String(answer.status));
      await read(answer.body, mine, (id, data) => {
        last = id;
        pause = SHORTEST;
        take(JSON.parse(data));
        tell("live");
      });
    } catch (error) {
      if (mine !== control || ended) return;
    }
    if (mine !== control || ended || document.hidden) return;
    tell("away");
    timer = setTimeout(run, pause);
    pause = Math.min(pause * 2, LONGEST);
  }

  function seen() {
    stop();
    if (!document.hidden) run();
  }

  function stop() {
    clearTimeout(timer);
    const before = control;
    control = null;
    before?.abort();
  }

  document.addEventListener("visibilitychange", seen);
  run();
  return () => {
    ended = true;
    document.removeEventListener("visibilitychange", seen);
    stop();
  };
}

async function read(body, control, take) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let parts = [];
  let watch = setTimeout(() => control.abort(), QUIET);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(watch);
      watch = setTimeout(() => control.abort(), QUIET);
      // Joined only when an event is whole: a long one comes in many parts.
      const tail = (parts.at(-1) ?? "").slice(-1);
      parts.push(value);
      if (!(tail + value).includes("\n\n")) continue;
      const events = parts.join("").split("\n\n");
      parts = [events.pop()];
      for (const event of events) pass(event, take);
    }
  } finally {
    clearTimeout(watch);
  }
}

function pass(event, take) {
  let id = null;
  let data = null;
  for (const line of event.split("\n")) {
    if (line.startsWith("id: ")) id = line.slice(4);
    else if (line.startsWith("data: ")) data = line.slice(6);
  }
  if (data !== null) take(id, data);
}
