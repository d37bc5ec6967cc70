import { until, withoutOffset } from './util.mjs';

/** A page with a Socket.IO client and no Echo: `received` holds every event as [name, ...arguments]. */
export class PlainClient {
  constructor({ name, io, url, options = {}, record = () => {}, hopeless = () => null }) {
    this.name = name;
    this.hopeless = hopeless;
    this.received = [];
    this.connections = [];
    this.taken = 0;
    this.socket = io(url, { forceNew: true, reconnectionDelay: 100, reconnectionDelayMax: 500, ...options });
    this.socket.on('connect', () => {
      this.connections.push(this.socket.id);
      record('connect', this.socket.id);
    });
    for (const event of ['error', 'connect_error']) this.socket.on(event, (error) => (this.lastError = error));
    const { onevent } = this.socket;
    this.socket.onevent = (packet) => {
      const data = withoutOffset(packet.data);
      this.received.push(data);
      record('receive', data);
      return onevent.call(this.socket, packet);
    };
  }

  get id() {
    return this.socket.id;
  }

  async whenConnected() {
    try {
      await until(() => this.socket.connected && this.id, `client ${this.name} to connect`);
    } catch (error) {
      throw new Error(`${error.message}; last error: ${this.lastError?.message ?? this.lastError ?? 'none'}`);
    }
    return this;
  }

  emit(...args) {
    this.socket.emit(...args);
  }

  /** The next event, in order of arrival. */
  async next() {
    await until(() => {
      const reason = this.hopeless();
      if (reason) throw new Error(reason);
      return this.received.length > this.taken;
    }, `${this.name} to receive an event`);
    return this.received[this.taken++];
  }

  close() {
    this.socket.io.reconnection?.(false);
    this.socket.disconnect();
  }
}
