/** A web server for the files in pages/, on another origin than the echo server's. */
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { fileURLToPath } from 'node:url';

const file = (relative) => readFileSync(fileURLToPath(new URL(`../${relative}`, import.meta.url)), 'utf8');

const SCRIPTS = {
  '/echo-1.js': 'node_modules/echo-1/dist/echo.iife.js',
  '/echo-2.js': 'node_modules/echo-2/dist/echo.iife.js',
  '/pusher.js': 'node_modules/pusher-js-8/dist/web/pusher.min.js',
  '/socket.io-2.js': 'node_modules/sio-2/dist/socket.io.js',
  '/laravel-echo.mjs': 'node_modules/echo-2/dist/echo.js',
  '/socket.io-client.mjs': 'node_modules/sio-4/dist/socket.io.esm.min.js',
};

/** Forwards a request to another server, and its response back. */
function passOn(request, response, { hostname, port, pathname }) {
  const { method, headers } = request;
  const passed = http.request({ hostname, port, path: pathname, method, headers }, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  passed.on('error', () => response.writeHead(502).end());
  request.pipe(passed);
}

export class PageServer {
  /** `backends`: paths to forward to these origins, like a web server in front of Laravel does. */
  static async start(backends = {}) {
    const pages = new PageServer(backends);
    await new Promise((resolve, reject) => {
      pages.server.once('error', reject);
      pages.server.listen(0, '127.0.0.1', resolve);
    });
    pages.url = `http://127.0.0.1:${pages.server.address().port}`;
    return pages;
  }

  #pages = new Map();

  constructor(backends) {
    this.server = http.createServer((request, response) => {
      const html = this.#pages.get(request.url);
      const script = SCRIPTS[request.url];
      const backend = backends[request.url];
      if (backend) return passOn(request, response, new URL(request.url, backend));
      if (html) response.setHeader('Content-Type', 'text/html; charset=utf-8').end(html);
      else if (script) response.setHeader('Content-Type', 'text/javascript; charset=utf-8').end(file(script));
      else response.writeHead(404).end();
    });
  }

  /** The address of a page with these values for its {{placeholders}}. */
  add(values, page = 'echo.html') {
    return this.addHtml(this.#filled(values, page));
  }

  /** The address of a page with this content. */
  addHtml(html) {
    const address = `/page-${this.#pages.size}`;
    this.#pages.set(address, html);
    return this.url + address;
  }

  #filled(values, page) {
    return file(`pages/${page}`).replace(/\{\{(\w+)\}\}/g, (placeholder, name) => {
      const value = values[name] ?? placeholder;
      return typeof value === 'string' ? value : JSON.stringify(value);
    });
  }

  stop() {
    this.server.closeAllConnections();
    return new Promise((resolve) => this.server.close(resolve));
  }
}
