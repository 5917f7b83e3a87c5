// The page at `/`: shows the log live by EventSource, appends one event, keeps the commands current.
//
// An EventSource fires only the event types that somebody listens to, and the log may hold any. So
// the page notices what it has not been shown, by a gap in the offsets or by a ping whose cursor is
// further on, reads that part from the history, and listens to the types found there from then on.
"use strict";

const SHOWN_MAX = 200;
const HEARTBEAT_S = 2;
const LOOK_MS_MIN = 300;
const LOOK_MS_MAX = 10000;
const RETRY_MS = 3000;

const byId = (id) => document.getElementById(id);
const list = byId("events");

let source = null;
let pattern = "**";
let paused = false;
let cursor = null; // the furthest cursor that came
let checked = -1; // every event up to this offset has been shown, or is not ours
let seen = new Set(); // offsets of rows shown or waiting, at most SHOWN_MAX and those still waiting
let waiting = []; // events that the next frame shows
let heardAt = 0;
let lookTimer = 0;
let lookMs = LOOK_MS_MIN;
let retryTimer = 0;
let run = 0; // counts connections, so that late answers to old ones are dropped
const types = new Set(["message"]);

const offsetOf = (text) => Number.parseInt(text, 10);

function setState(state, text) {
  byId("state").dataset.state = state;
  byId("state").textContent = text;
}

function setNotice(text) {
  byId("notice").hidden = text === "";
  byId("notice").textContent = text;
}

function moveCursor(text) {
  if (!text || (cursor !== null && offsetOf(text) < offsetOf(cursor))) return;
  cursor = text;
  byId("cursor").textContent = text;
  byId("shell-cursor").textContent = text;
}

// Connecting

function disconnect() {
  if (source) source.close();
  source = null;
  clearTimeout(lookTimer);
  clearTimeout(retryTimer);
  lookTimer = 0;
  run += 1;
}

function streamUrl() {
  const query = new URLSearchParams({ topic: pattern, format: "event", ping: "true", heartbeat: HEARTBEAT_S });
  if (cursor === null) query.set("from", "-20");
  else query.set("last_event_id", cursor);
  return `/api/v1/events/stream?${query}`;
}

function connect() {
  disconnect();
  setState("wait", "connecting");
  const url = streamUrl();
  source = new EventSource(url);
  for (const type of types) source.addEventListener(type, onEvent);
  source.addEventListener("connection.established", (event) => {
    const { state, reason, from } = JSON.parse(event.data);
    if (state === "reset") {
      if (reason !== "expired") restart(event.lastEventId);
      setNotice(`Could not continue from that cursor (${reason}): the view starts again at offset ${from}.`);
    }
    checked = Math.max(checked, from - 1);
    onCursor(event);
    setState("live", state === "resumed" ? "live, resumed" : "live");
  });
  source.addEventListener("connection.reset", (event) => {
    const { reason, from } = JSON.parse(event.data);
    setNotice(`A part of the log was passed over (${reason}): the view continues at offset ${from}.`);
    checked = Math.max(checked, from - 1);
    onCursor(event);
  });
  source.addEventListener("connection.closing", (event) => {
    setState("wait", `reconnecting: ${JSON.parse(event.data).reason}`);
  });
  source.addEventListener("ping", (event) => {
    onCursor(event);
    if (offsetOf(event.lastEventId) > checked) lookSoon();
  });
  source.onerror = () => {
    if (source && source.readyState === EventSource.CLOSED) explain(url);
    else setState("wait", "reconnecting");
  };
}

// The log is another one, or has lost its end: offsets mean something else now.
function restart(text) {
  cursor = null;
  checked = -1;
  seen = new Set();
  waiting = [];
  list.replaceChildren();
  list.hidden = true;
  moveCursor(text);
}

// An EventSource does not say why it gave up: ask again for the answer itself.
async function explain(url) {
  disconnect();
  const mine = run;
  setState("fail", "not connected");
  const abort = new AbortController();
  try {
    const answer = await fetch(url, { headers: { Accept: "text/event-stream" }, signal: abort.signal });
    const problem = answer.ok ? null : await answer.json();
    abort.abort();
    if (mine !== run) return;
    if (problem && answer.status < 500) {
      setNotice(`${problem.title}: ${problem.detail}`);
      return;
    }
  } catch {
    if (mine !== run) return;
  }
  retryTimer = setTimeout(connect, RETRY_MS);
}

// Events

function onCursor(event) {
  heardAt = performance.now();
  moveCursor(event.lastEventId);
}

function onEvent(event) {
  onCursor(event);
  const item = JSON.parse(event.data);
  if (item.offset === checked + 1) checked = item.offset;
  else if (item.offset > checked) lookSoon();
  show(item);
}

function lookSoon() {
  if (lookTimer === 0) lookTimer = setTimeout(look, lookMs);
}

// Reads from the history what the EventSource may not have shown.
async function look() {
  const mine = run;
  const query = new URLSearchParams({ topic: pattern, from: checked + 1, limit: SHOWN_MAX });
  let found = false;
  try {
    const answer = await fetch(`/api/v1/events/history?${query}`);
    if (answer.ok && mine === run) {
      const page = await answer.json();
      if (mine !== run) return;
      for (const item of page.events) {
        const type = item.type ?? "message";
        if (!types.has(type)) {
          listenTo(type);
          found = true;
        }
        show(item);
      }
      checked = Math.max(checked, offsetOf(page.cursor));
      found ||= page.next !== undefined;
    }
  } catch {
    // The stream's own reconnecting tells whether the server is there.
  }
  if (mine !== run) return;
  lookTimer = 0;
  lookMs = found ? LOOK_MS_MIN : Math.min(lookMs * 2, LOOK_MS_MAX);
}

function listenTo(type) {
  if (types.has(type)) return;
  types.add(type);
  if (source) source.addEventListener(type, onEvent);
}

// Bytes that nobody listens to keep the stream from being silent, so no ping comes either.
setInterval(() => {
  const quiet = performance.now() - heardAt > 2000 * HEARTBEAT_S;
  if (source && source.readyState === EventSource.OPEN && quiet) lookSoon();
}, 1000);

// The list

function show(item) {
  if (seen.has(item.offset)) return;
  seen.add(item.offset);
  waiting.push(item);
  if (waiting.length === 1) requestAnimationFrame(flush);
  // A hidden page draws no frames.
  if (waiting.length > 4 * SHOWN_MAX) flush();
}

function flush() {
  const items = waiting.sort((a, b) => a.offset - b.offset).slice(-SHOWN_MAX);
  waiting = [];
  for (const item of items) {
    let before = list.firstElementChild;
    while (before && Number(before.dataset.offset) > item.offset) before = before.nextElementSibling;
    list.insertBefore(row(item), before);
  }
  while (list.childElementCount > SHOWN_MAX) list.lastElementChild.remove();
  const rows = [...list.children].map((element) => Number(element.dataset.offset));
  seen = new Set(rows);
  const oldest = rows.at(-1);
  byId("shown").textContent = rows.length === SHOWN_MAX ? `the last ${SHOWN_MAX}, from ${oldest}` : "";
  byId("empty").hidden = rows.length > 0;
  list.hidden = rows.length === 0;
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function row(item) {
  const data = item.data_base64 ?? (typeof item.data === "string" ? item.data : JSON.stringify(item.data)) ?? "";
  const line = element("span", "line");
  line.append(element("span", "topic", item.topic));
  const type = item.type ?? "message";
  if (type !== "message") line.append(element("span", "type", type));
  line.append(element("span", "data", data.slice(0, 300)));
  const summary = element("summary");
  const time = element("time", "", new Date(item.time).toLocaleTimeString([], { hourCycle: "h23" }));
  time.dateTime = item.time;
  summary.append(element("span", "offset", item.offset), line, time);
  const details = element("details");
  details.append(summary);
  details.addEventListener("toggle", () => {
    if (details.open && !details.querySelector("pre")) {
      details.append(element("pre", "", JSON.stringify(item, null, 2)));
    }
  });
  const made = element("li");
  made.dataset.offset = item.offset;
  made.append(details);
  return made;
}

// Controls

byId("watch").addEventListener("submit", (event) => {
  event.preventDefault();
  pattern = byId("pattern").value.trim() || "**";
  setNotice("");
  restart(null);
  byId("cursor").textContent = "none yet";
  byId("empty").hidden = false;
  byId("shown").textContent = "";
  lookMs = LOOK_MS_MIN;
  setPaused(false);
  connect();
});

function setPaused(value) {
  paused = value;
  byId("pause").textContent = paused ? "Continue" : "Pause";
  byId("pause").setAttribute("aria-pressed", String(paused));
}

// Pausing closes the stream: the log keeps what comes, and the cursor says where to go on.
byId("pause").addEventListener("click", () => {
  setPaused(!paused);
  if (!paused) {
    connect();
    return;
  }
  disconnect();
  setState("wait", "paused");
});

byId("append").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.submitter ?? event.target.querySelector("button");
  const type = byId("type").value.trim();
  const data = byId("data").value;
  const members = { topic: byId("topic").value };
  if (type) members.type = type;
  if (!isJson(data)) Object.assign(members, { content_type: "text/plain;charset=utf-8", data });
  // The topic is a member and not in the path, where a browser would resolve a `..`, encoded or not,
  // and append to another topic. JSON goes as it was typed: parsing would round large numbers.
  const body = isJson(data) ? `${JSON.stringify(members).slice(0, -1)},"data":${data}}` : JSON.stringify(members);
  const headers = { "Content-Type": "application/json" };
  button.disabled = true;
  const begun = performance.now();
  try {
    const answer = await fetch("/api/v1/events", { method: "POST", headers, body });
    const ms = (performance.now() - begun).toFixed(1);
    if (answer.ok && type) listenTo(type);
    showAnswer(answer.ok, `${answer.status} ${answer.statusText}`, `in ${ms} ms`, await answer.text());
  } catch (error) {
    const what = `${error.message}. Whether the event was appended shows in the list once the server is back.`;
    showAnswer(false, "No answer", "", what);
  } finally {
    button.disabled = false;
  }
});

function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function showAnswer(good, status, rest, body) {
  const line = element("div");
  line.append(element("strong", good ? "good" : "bad", status), ` ${rest}`);
  const parts = [line, element("pre", "", body.trim())];
  if (!good && isJson(body)) {
    const { type } = JSON.parse(body);
    if (typeof type === "string" && type.startsWith("/problems/")) {
      const link = element("a", "", "What this means");
      link.href = type;
      parts.push(link);
    }
  }
  byId("answer").replaceChildren(...parts);
}

// Commands

for (const code of document.querySelectorAll(".command code")) {
  for (const node of code.childNodes) {
    if (node.nodeType === Node.TEXT_NODE) {
      node.data = node.data.replaceAll("http://127.0.0.1:7400", location.origin);
    }
  }
}

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const code = button.closest(".command").querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

connect();
