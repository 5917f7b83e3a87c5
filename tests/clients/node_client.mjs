// One reader, through npm `eventsource`, npm `ws`, Node's fetch, or headless Chromium's own EventSource, fetch and
// WebSocket; the same contract as py_client.py: prints `offset<TAB>data` an event, ends after the event of type `end`
// or after `--count` events, resumes by itself, cuts its own connection about every `--cut-every` events.
import { EventSource } from "eventsource";
import WebSocket from "ws";
import { parseArgs } from "node:util";

const { values: options, positionals: [client] } = parseArgs({
  allowPositionals: true,
  options: {
    base: { type: "string" }, topic: { type: "string", default: "**" },
    count: { type: "string", default: "-1" }, "cut-every": { type: "string", default: "0" },
    seed: { type: "string", default: "1" }, start: { type: "string", default: "earliest" },
    accept: { type: "string" },
  },
});

// Runs here and, as text, in the page: no outside names but those of a browser.
function read({ kind, base, topic, start, accept, count, cutEvery, seed, EventSource, WebSocket, emit, opened, done }) {
  let cursor = null, seen = 0, cuts = 0, ended = false;
  const draw = () => { // a small LCG, so that a seed repeats its cuts
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return cutEvery ? seen + 1 + (seed % (2 * cutEvery)) : Infinity;
  };
  let nextCut = draw();
  // Returns true when the connection must be cut now.
  const event = (id, type, data) => {
    if (ended) return true;
    cursor = id;
    emit(`${id.split(".")[0]}\t${data}\n`);
    seen += 1;
    if (type === "end" || seen === count) { ended = true; done(cuts); return true; }
    if (seen >= nextCut) { cuts += 1; nextCut = draw(); return true; }
    return false;
  };
  const again = () => { if (!ended) setTimeout(open, 50); };
  const streamUrl = () => {
    const url = new URL(`${base}/api/v1/events/stream`);
    // No heartbeat pushes out what a decoder may hold back.
    url.search = new URLSearchParams({ topic, from: start, ...(accept && { heartbeat: 300 }), ...(cursor && { lastEventId: cursor }) });
    return url.href;
  };
  // Node's fetch takes a field that a page may not set: there the browser is told.
  const asking = accept ? { headers: { "Accept-Encoding": accept } } : {};
  const openFetch = async () => {
    try {
      const answer = await fetch(streamUrl(), asking);
      const decoder = new TextDecoder();
      let text = "";
      for (const reader = answer.body.getReader(); ;) {
        const { value, done } = await reader.read();
        if (done) break;
        text += decoder.decode(value, { stream: true });
        const blocks = text.split("\n\n");
        text = blocks.pop();
        for (const block of blocks) {
          const field = (name) => block.split("\n").filter((line) => line.startsWith(`${name}: `))
            .map((line) => line.slice(name.length + 2));
          const type = field("event")[0] ?? "message";
          if (type === "connection.established") opened(answer.headers.get("content-encoding"));
          if (type.startsWith("connection.") || type === "ping") continue;
          if (event(field("id")[0], type, field("data").join("\n"))) { reader.cancel(); return again(); }
        }
      }
    } catch (error) { if (error instanceof ReferenceError) throw error; }
    again();
  };
  const openSse = () => {
    const told = (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...asking.headers } });
    let encoding;
    const source = new EventSource(streamUrl(), {
      fetch: async (...all) => { const answer = await told(...all); encoding = answer.headers.get("content-encoding"); return answer; },
    });
    source.addEventListener("connection.established", () => opened(encoding));
    const take = (type) => (message) => {
      if (source.readyState !== 2 && event(message.lastEventId, type, message.data)) { source.close(); again(); }
    };
    source.onmessage = take("message");
    source.addEventListener("end", take("end"));
    source.addEventListener("connection.reset", (message) => { throw new Error(message.data); });
    source.onerror = () => { if (source.readyState === 2) again(); }; // else it reconnects by itself
  };
  const openWs = () => {
    const socket = new WebSocket(`${base.replace(/^http/, "ws")}/api/v1/events/ws`);
    let tag = null, closed = false;
    const close = () => { if (!closed) { closed = true; socket.close(); again(); } };
    socket.onopen = () => socket.send(JSON.stringify({
      type: "subscribe", id: 1, topics: [topic], from: "earliest", ...(cursor && { last_event_id: cursor }),
    }));
    socket.onmessage = ({ data }) => {
      if (closed) return;
      const message = JSON.parse(data);
      if (message.type === "subscribed") {
        if (message.state === "reset") throw new Error(data);
        ({ tag, cursor } = message);
      } else if (message.type === "event") {
        if (event(`${message.offset}.${tag}`, message.event, JSON.stringify(message.data))) close();
      } else if (message.type === "cursor") {
        cursor = message.cursor;
      } else if (message.type === "error") throw new Error(data);
    };
    socket.onclose = close;
    socket.onerror = close;
  };
  const open = { sse: openSse, fetch: openFetch, ws: openWs }[kind];
  open();
}

const finish = (cuts) => process.stdout.write("", () => { console.error(`cuts=${cuts}`); process.exit(0); });
const settings = {
  base: options.base, topic: options.topic, start: options.start, count: Number(options.count),
  cutEvery: Number(options["cut-every"]), seed: Number(options.seed),
};

const kind = { ws: "ws", "chromium-ws": "ws", "node-fetch": "fetch", "chromium-fetch": "fetch" }[client] ?? "sse";
const opened = (encoding) => { if (options.accept) console.error(`encoding=${encoding ?? "identity"}`); };

if (client === "eventsource" || client === "ws" || client === "node-fetch") {
  const emit = (line) => process.stdout.write(line);
  read({ ...settings, kind, accept: options.accept, EventSource, WebSocket, emit, opened, done: finish });
} else if (client === "chromium-sse" || client === "chromium-fetch" || client === "chromium-ws") {
  const { chromium } = await import("playwright-core");
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
    timeout: 900_000, // What nothing takes, however busy the machine is.
  });
  const page = await browser.newPage();
  page.on("pageerror", (error) => { console.error(String(error)); process.exit(1); });
  if (options.accept) {
    await page.setExtraHTTPHeaders({ "Accept-Encoding": options.accept });
  }
  // An EventSource does not show fields: they are seen from outside.
  let seen;
  page.on("response", (answer) => { if (answer.url().includes("/stream")) seen = answer.headers()["content-encoding"]; });
  await page.exposeFunction("opened", () => opened(seen));
  await page.exposeFunction("emitLines", (lines) => { process.stdout.write(lines); });
  const ended = new Promise((resolve) => page.exposeFunction("finished", resolve));
  // Our own origin, but a page that does nothing: /livez is served by the server itself.
  for (;;) {
    try { await page.goto(`${options.base}/livez`); break; } catch { await new Promise((r) => setTimeout(r, 100)); }
  }
  await page.evaluate(({ settings, kind, source }) => {
    const read = new Function(`return ${source}`)();
    let lines = "", sending = Promise.resolve();
    const flush = () => { if (lines) { const now = lines; lines = ""; sending = sending.then(() => emitLines(now)); } };
    setInterval(flush, 20);
    read({ ...settings, kind, EventSource, WebSocket, emit: (line) => { lines += line; }, opened,
      done: (cuts) => { flush(); sending.then(() => finished(cuts)); } });
  }, { settings, kind, source: read.toString() });
  const cuts = await ended;
  await browser.close();
  finish(cuts);
} else {
  console.error("usage: node_client.mjs eventsource|ws|node-fetch|chromium-sse|chromium-fetch|chromium-ws --base URL ...");
  process.exit(2);
}
