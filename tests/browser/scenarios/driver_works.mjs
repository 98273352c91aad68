// The driver's own test: a page with a link, reached by a click. Used with a site that the test itself serves.

export default async ({ page, url, check, screenshot, requests }) => {
  await page.goto(url);
  check('the first page has its heading', (await page.textContent('h1')) === 'First');
  await page.click('a');
  await page.waitForURL('**/second');
  check('the link leads on', (await page.textContent('h1')) === 'Second');
  check('both requests were seen', requests.filter((request) => request.status === 200).length >= 2, requests);
  await screenshot('second');
};
