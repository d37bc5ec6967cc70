/** Headless Chromium, and the actions of a user in it. */
import { chromium } from 'playwright-core';
import { program } from './tools.mjs';
import { DEADLINE_MS, until } from './wait.mjs';

const FLAGS = [
  '--no-sandbox', // Chromium refuses to start as root with it, as in a container
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export function launchBrowser(...flags) {
  return chromium.launch({ executablePath: program('chromium'), headless: true, args: [...FLAGS, ...flags], timeout: DEADLINE_MS });
}

/** A tab with its own cookies that records errors. */
export class Tab {
  static async open(browser, stack) {
    const context = await browser.newContext();
    context.setDefaultTimeout(DEADLINE_MS);
    return new Tab(context, await context.newPage(), stack);
  }

  constructor(context, page, stack) {
    this.context = context;
    this.page = page;
    this.stack = stack;
    this.problems = [];
    page.on('pageerror', (error) => this.problems.push(String(error)));
    page.on('console', (message) => {
      if (message.type() === 'error') this.problems.push(`${message.text()} (${message.location().url})`);
    });
  }

  /** Log in on the Laravel application's own origin; its cookies hold for every port of the host. */
  async login(name) {
    const page = await this.context.newPage();
    await page.goto(`${this.stack.laravel.url}/me`);
    const status = await page.evaluate(async (email) => {
      const [, token] = /XSRF-TOKEN=([^;]+)/.exec(document.cookie);
      const response = await fetch('/login', {
        method: 'POST',
        headers: { 'Content-Type': 'application/json', 'X-XSRF-TOKEN': decodeURIComponent(token) },
        body: JSON.stringify({ email, password: 'secret' }),
      });
      return response.status;
    }, `${name}@example.test`);
    if (status !== 200) throw new Error(`POST /login answered ${status} in the browser`);
    await page.close();
  }

  async goto(url) {
    await this.page.goto(url);
  }

  text(id) {
    return this.page.locator(`#${id}`).textContent();
  }

  /** Wait until an element of the page has exactly this text. */
  async shows(id, text) {
    let found;
    await until(
      async () => (found = await this.text(id)) === text,
      () => `#${id} to show "${text}"; it shows "${found}"; ${this.#circumstances()}`,
    );
  }

  /** Publish a probe through Redis until the page says that the channel delivers. */
  async whenDelivering(channel) {
    await until(
      async () => {
        await this.stack.redis.publish(channel, 'e2e.probe', {});
        return (await this.text('delivering')).split(' ').includes(channel);
      },
      () => `events on ${channel} to be delivered; ${this.#circumstances()}`,
    );
  }

  #circumstances() {
    return `errors in the page: ${this.problems.join('\n') || 'none'}; the server's log:\n${this.stack.echo.log}`;
  }

  close() {
    return this.context.close();
  }
}
