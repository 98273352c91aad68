// A node with an imported folder: everything is listed and opens, sound and film play with ranges, search works without
// JavaScript.

const TITLES_MIN = 10;
const DEADLINE_MS = 30_000;

export default async ({ page, context, url, check, screenshot, requests }) => {
  const api = await (await page.request.get(`${url}/v1/media?page_size=100`)).json();
  check('the folder was imported', api.items.length >= TITLES_MIN, api.items.length);

  await page.goto(url);
  await screenshot('home');
  await page.goto(`${url}/browse`);
  const shown = await page.locator('a[href^="/media/"]').evaluateAll((links) => links.map((link) => link.getAttribute('href')));
  for (const media of api.items) {
    check(`the list shows ${media.title}`, shown.includes(`/media/${media.id}`), shown);
  }
  await screenshot('browse');

  for (const kind of ['podcast', 'video', 'image', 'book', 'doc']) {
    const media = api.items.find((item) => item.media_kind === kind);
    if (!media) continue;
    await page.goto(`${url}/browse`);
    await page.locator(`a[href="/media/${media.id}"]`).first().click();
    await page.waitForURL(`**/media/${media.id}`);
    check(`the page of a ${kind} names it`, (await page.locator('h1').innerText()).includes(media.title), media.title);
    await screenshot(kind);
  }

  for (const [kind, element] of [['podcast', 'audio'], ['video', 'video']]) {
    for (const media of api.items.filter((item) => item.media_kind === kind)) {
      await page.goto(`${url}/media/${media.id}`);
      await play(page, element, media, check);
      const blob = `/v1/blobs/${media.files[0].blob}`;
      const ranges = requests.filter((request) => request.url.includes(blob) && request.range && request.status === 206);
      check(`${media.title} is fetched in ranges`, ranges.length > 0, requests.filter((request) => request.url.includes(blob)));
      if (media.files[0].size_bytes > 5_000_000) {
        const later = ranges.filter((request) => !request.range.startsWith('bytes=0-'));
        check(`a place late in ${media.title} is fetched by itself`, later.length > 0, ranges);
      }
    }
  }

  for (const media of api.items.filter((item) => item.media_kind === 'image')) {
    await page.goto(`${url}/media/${media.id}`);
    const loaded = await page
      .locator(`img[src*="${media.files[0].blob}"]`)
      .first()
      .evaluate((image) => image.decode().then(() => image.naturalWidth > 0));
    check(`the picture ${media.title} shows`, loaded);
  }

  // Without JavaScript.
  const plain = await context.newPage();
  const protocol = await context.newCDPSession(plain);
  await protocol.send('Emulation.setScriptExecutionDisabled', { value: true });
  await plain.goto(url);
  await plain.fill('input[type=search]', 'handbook');
  await plain.press('input[type=search]', 'Enter');
  await plain.waitForURL('**/search?*');
  const found = plain.locator('a[href^="/media/"]');
  check('search without JavaScript finds the handbook', (await found.count()) > 0, await plain.locator('main').innerText());
  await found.first().click();
  await plain.waitForURL('**/media/*');
  check('and leads to it', /handbook/i.test(await plain.locator('h1').innerText()));
  const saved = plain.locator('a[download]').first();
  const file = await page.request.get(new URL(await saved.getAttribute('href'), url).href);
  check('and it can be saved', file.ok() && /attachment/.test(file.headers()['content-disposition'] ?? ''), file.headers());
};

// Plays an element from near its end, and insists that the sound moves on.
async function play(page, element, media, check) {
  const player = page.locator(element).first();
  await player.waitFor({ state: 'attached', timeout: DEADLINE_MS });
  const played = await player.evaluate(async (it, deadline) => {
    const event = (name) =>
      new Promise((resolve, reject) => {
        it.addEventListener(name, resolve, { once: true });
        it.addEventListener('error', () => reject(new Error(it.error?.message ?? 'it does not play')), { once: true });
        setTimeout(() => reject(new Error(`no ${name} within ${deadline} ms`)), deadline);
      });
    it.muted = true;
    if (it.readyState < 1) {
      const known = event('loadedmetadata');
      it.load();
      await known;
    }
    const place = it.duration * 0.8;
    const there = event('seeked');
    it.currentTime = place;
    await there;
    const moves = event('timeupdate');
    await it.play();
    await moves;
    return { place, duration: it.duration, at: it.currentTime };
  }, DEADLINE_MS);
  check(`${media.title} plays from near its end`, played.at >= played.place - 1 && played.duration > 0, played);
}
