// Runs one scenario on a page in headless Chromium and prints what it found as JSON.
//
//   node drive.mjs --scenario NAME --url http://127.0.0.1:8080 --out FOLDER [--chromium FILE] [--deadline-ms N]
//
// A scenario is scenarios/NAME.mjs with `export default async (visit) => { … }`, where `visit` has
//   page, context, url          Playwright's page and context, the site's address
//   check(name, ok, detail)     notes whether something holds; the rest goes on
//   screenshot(name)            writes FOLDER/NAME.png of the whole page
//   requests                    every request so far: { method, url, range, status }
//
// Exit status 0 means that the scenario came to its end and every check held.

import { mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';

// Without these a browser looks for its maker's hosts at every start, and its sandbox refuses to be root.
const CHROMIUM_FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--autoplay-policy=no-user-gesture-required',
];
const VIEWPORT = { width: 1280, height: 800 };
const REQUESTS_MAX = 10_000;

const { values: options } = parseArgs({
  options: {
    scenario: { type: 'string' },
    url: { type: 'string' },
    out: { type: 'string' },
    chromium: { type: 'string', default: '/usr/bin/chromium' },
    'deadline-ms': { type: 'string', default: '120000' },
  },
});
for (const name of ['scenario', 'url', 'out']) {
  if (!options[name]) {
    console.error(`--${name} is missing`);
    process.exit(2);
  }
}

const result = { scenario: options.scenario, url: options.url, ok: false, checks: [], console: [], failedRequests: [], requests: [], screenshots: [], error: null };
const profile = path.join(options.out, 'profile');
let context;
try {
  // Beside the results, so that it goes with them if this process is killed.
  await mkdir(profile, { recursive: true });
  context = await chromium.launchPersistentContext(profile, {
    executablePath: options.chromium,
    headless: true,
    args: CHROMIUM_FLAGS,
    viewport: VIEWPORT,
  });
  await within(Number(options['deadline-ms']), runScenario(context));
} catch (error) {
  result.error = error.stack ?? String(error);
} finally {
  await context?.close();
  await rm(profile, { recursive: true, force: true });
}

result.ok = result.error === null && result.checks.length > 0 && result.checks.every((check) => check.ok);
const text = JSON.stringify(result, null, 2);
await writeFile(path.join(options.out, `${options.scenario}.json`), text);
console.log(text);
process.exitCode = result.ok ? 0 : 1;

async function runScenario(context) {
  const scenario = await import(new URL(`scenarios/${options.scenario}.mjs`, import.meta.url));
  const page = context.pages()[0] ?? (await context.newPage());
  listen(page);
  context.on('page', listen);
  await scenario.default({
    page,
    context,
    url: options.url,
    requests: result.requests,
    check(name, ok, detail = null) {
      result.checks.push({ name, ok: Boolean(ok), detail });
    },
    async screenshot(name) {
      const file = path.join(options.out, `${name}.png`);
      await page.screenshot({ path: file, fullPage: true });
      result.screenshots.push(file);
    },
  });
}

// Notes what goes wrong on a page without anybody asking.
function listen(page) {
  page.on('console', (message) => {
    if (message.type() === 'error') result.console.push(message.text());
  });
  page.on('pageerror', (error) => result.console.push(String(error)));
  page.on('requestfailed', (request) => {
    result.failedRequests.push({ url: request.url(), reason: request.failure()?.errorText ?? null });
  });
  page.on('response', (response) => {
    if (result.requests.length >= REQUESTS_MAX) return;
    const request = response.request();
    result.requests.push({
      method: request.method(),
      url: request.url(),
      range: request.headers().range ?? null,
      status: response.status(),
    });
  });
}

async function within(milliseconds, work) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`the scenario took longer than ${milliseconds} ms`)), milliseconds);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
