/**
 * weapp.socket.io, the Socket.IO client of WeChat mini programs, outside of WeChat: its file is run
 * with a `wx` made here. Mini programs have WebSockets only, and no cookies.
 * Version 3 calls `wx` itself; 2.2.1 as published expects a WebSocket in `window`, which mini programs
 * provide with an adapter over `wx`. Both use Engine.IO 4.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import WebSocket from 'ws';

const require = createRequire(import.meta.url);

/** The `io` function of the package installed as `name`. */
export function loadWeapp(name) {
  const file = require.resolve(name);
  const module = { exports: {} };
  const window = { WebSocket: AdaptedWebSocket };
  const globals = { module, exports: module.exports, require, window, self: window, wx: { connectSocket } };
  new Function(...Object.keys(globals), readFileSync(file, 'utf8'))(...Object.values(globals));
  return module.exports.default ?? module.exports;
}

/** wx.connectSocket: opens a WebSocket and returns a SocketTask. */
function connectSocket({ url, header = {}, protocols = [], success, complete }) {
  const socket = new WebSocket(url, protocols, { headers: header, perMessageDeflate: false });
  const called = ({ success: done, fail, complete: always } = {}) => (error) => {
    (error ? fail : done)?.(error ? { errMsg: error.message } : { errMsg: 'ok' });
    always?.();
  };
  called({ success, complete })();
  return {
    onOpen: (listener) => socket.on('open', () => listener({ header: {} })),
    onClose: (listener) => socket.on('close', (code, reason) => listener({ code, reason: String(reason) })),
    onError: (listener) => socket.on('error', ({ message }) => listener({ errMsg: message })),
    onMessage: (listener) => {
      socket.on('message', (data, isBinary) => listener({ data: isBinary ? new Uint8Array(data).buffer : String(data) }));
    },
    send: ({ data, ...callbacks }) => socket.send(data, called(callbacks)),
    close: ({ code = 1000, reason = '', ...callbacks } = {}) => {
      socket.close(code, reason);
      called(callbacks)();
    },
  };
}

/** The part of a browser's WebSocket that clients use, over wx.connectSocket. */
class AdaptedWebSocket {
  constructor(url, protocols) {
    this.task = connectSocket({ url, protocols });
    this.task.onOpen(() => this.onopen?.({}));
    this.task.onMessage(({ data }) => this.onmessage?.({ data }));
    this.task.onError((error) => this.onerror?.(error));
    this.task.onClose((event) => this.onclose?.(event));
  }

  send(data) {
    this.task.send({ data });
  }

  close() {
    this.task.close();
  }
}
