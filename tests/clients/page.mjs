// The built-in page in headless Chromium, driven by lines on standard input: each is a function body that runs
// in the page; its result goes to standard output as a line of JSON. An error of the page ends it.
import { chromium } from "playwright-core";
import { createInterface } from "node:readline";

// What nothing takes, however busy the machine is.
const HANGS_MS = 900_000;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
  timeout: HANGS_MS,
});
const page = await browser.newPage();
page.on("pageerror", (error) => { console.error(String(error)); process.exit(1); });
await page.goto(process.argv[2], { timeout: HANGS_MS });
for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await page.evaluate(new Function(JSON.parse(line))) ?? null));
}
await browser.close();
