/** A web server for pages/echo.html, on an origin that is not the echo server's. */
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { fileURLToPath } from 'node:url';

const file = (relative) => readFileSync(fileURLToPath(new URL(`../${relative}`, import.meta.url)), 'utf8');

const SCRIPTS = {
  '/echo-1.js': 'node_modules/echo-1/dist/echo.iife.js',
  '/echo-2.js': 'node_modules/echo-2/dist/echo.iife.js',
  '/socket.io-2.js': 'node_modules/sio-2/dist/socket.io.js',
  '/laravel-echo.mjs': 'node_modules/echo-2/dist/echo.js',
  '/socket.io-client.mjs': 'node_modules/sio-4/dist/socket.io.esm.min.js',
};

export class PageServer {
  static async start() {
    const pages = new PageServer();
    await new Promise((resolve, reject) => {
      pages.server.once('error', reject);
      pages.server.listen(0, '127.0.0.1', resolve);
    });
    pages.url = `http://127.0.0.1:${pages.server.address().port}`;
    return pages;
  }

  #pages = new Map();

  constructor() {
    this.server = http.createServer((request, response) => {
      const html = this.#pages.get(request.url);
      const script = SCRIPTS[request.url];
      if (html) response.setHeader('Content-Type', 'text/html; charset=utf-8').end(html);
      else if (script) response.setHeader('Content-Type', 'text/javascript; charset=utf-8').end(file(script));
      else response.writeHead(404).end();
    });
  }

  /** The address of a page with these values for its {{placeholders}}. */
  add(values) {
    return this.addHtml(this.#filled(values));
  }

  /** The address of a page with this text. */
  addHtml(html) {
    const address = `/page-${this.#pages.size}`;
    this.#pages.set(address, html);
    return this.url + address;
  }

  #filled(values) {
    return file('pages/echo.html').replace(/\{\{(\w+)\}\}/g, (placeholder, name) => {
      const value = values[name] ?? placeholder;
      return typeof value === 'string' ? value : JSON.stringify(value);
    });
  }

  stop() {
    this.server.closeAllConnections();
    return new Promise((resolve) => this.server.close(resolve));
  }
}
