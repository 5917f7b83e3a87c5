// One reader, through npm `eventsource`, npm `ws`, or headless Chromium's own EventSource and WebSocket;
// the same contract as py_client.py: prints `offset<TAB>data` an event, ends after the event of type `end`
// or after `--count` events, resumes by itself, cuts its own connection about every `--cut-every` events.
import { EventSource } from "eventsource";
import WebSocket from "ws";
import { parseArgs } from "node:util";

const { values: options, positionals: [client] } = parseArgs({
  allowPositionals: true,
  options: {
    base: { type: "string" }, topic: { type: "string", default: "**" },
    count: { type: "string", default: "-1" }, "cut-every": { type: "string", default: "0" },
    seed: { type: "string", default: "1" },
  },
});

// Runs here and, as text, in the page: no outside names but those of a browser.
function read({ kind, base, topic, count, cutEvery, seed, EventSource, WebSocket, emit, done }) {
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
  const openSse = () => {
    const url = new URL(`${base}/api/v1/events/stream`);
    url.search = new URLSearchParams({ topic, from: "earliest", ...(cursor && { lastEventId: cursor }) });
    const source = new EventSource(url.href);
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
  const open = kind === "sse" ? openSse : openWs;
  open();
}

const finish = (cuts) => process.stdout.write("", () => { console.error(`cuts=${cuts}`); process.exit(0); });
const settings = {
  base: options.base, topic: options.topic, count: Number(options.count),
  cutEvery: Number(options["cut-every"]), seed: Number(options.seed),
};

if (client === "eventsource" || client === "ws") {
  const kind = client === "ws" ? "ws" : "sse";
  read({ ...settings, kind, EventSource, WebSocket, emit: (line) => process.stdout.write(line), done: finish });
} else if (client === "chromium-sse" || client === "chromium-ws") {
  const { chromium } = await import("playwright-core");
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });
  const page = await browser.newPage();
  page.on("pageerror", (error) => { console.error(String(error)); process.exit(1); });
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
    read({ ...settings, kind, EventSource, WebSocket, emit: (line) => { lines += line; },
      done: (cuts) => { flush(); sending.then(() => finished(cuts)); } });
  }, { settings, kind: client === "chromium-ws" ? "ws" : "sse", source: read.toString() });
  const cuts = await ended;
  await browser.close();
  finish(cuts);
} else {
  console.error("usage: node_client.mjs eventsource|ws|chromium-sse|chromium-ws --base URL ...");
  process.exit(2);
}
