// The activity during a round of the soak test: clients that stay and check every event, clients that connect and disconnect,
// frozen readers, and outages. All of it ends with the round.

import { sleep, until } from '../../tests/compat/lib/util.mjs';
import { Client, KINDS } from './client.mjs';

const pick = (list) => list[Math.floor(Math.random() * list.length)];
const between = (from, to) => from + Math.random() * (to - from);
const chance = (share) => Math.random() < share;

const CHANNELS = ['news', 'private-orders', 'presence-office'];
/** Number of clients of each kind that stay for the round. */
const STAYING_OF_A_KIND = 4;
/** Events per second, half of them over Redis and half over HTTP. */
const RATE = 8;
/** Clients that connect per second, and the longest time that one stays. */
const CHURN = 6;
const LONGEST_STAY = 20_000;
const FLOOD = 40_000;

/** Counts by kind, for the report. */
export class Counts extends Map {
  add(kind, count = 1) {
    this.set(kind, (this.get(kind) ?? 0) + count);
  }
}

export class Round {
  /** `findings` are errors, `counts` what was done. */
  constructor(stack, findings, counts) {
    Object.assign(this, { stack, findings, counts });
    this.isOver = false;
    this.redisIsAway = false;
    this.appIsAway = false;
    /** Number of events sent, by channel and source. */
    this.sent = {};
    this.staying = [];
    this.visitors = new Set();
  }

  /** Runs all activity for this long, then disconnects all clients. */
  async run(ms) {
    await this.#settleIn();
    const tasks = [this.#publish('redis'), this.#publish('http'), this.#whispers(), this.#churn(), this.#freezing(ms), this.#outages(ms)];
    await sleep(ms);
    this.isOver = true;
    await Promise.all(tasks);
    await this.#hasAll();
    await Promise.all([...this.staying.map((witness) => witness.client.leave('goodbye')), ...this.visitors]);
  }

  /** Repeats an action at intervals until the round is over. Errors are findings. */
  async #every(ms, what, act) {
    while (!this.isOver) {
      const started = Date.now();
      try {
        await act();
      } catch (error) {
        this.findings.add(`${what}: ${error.message}`);
      }
      await sleep(Math.max(0, ms - (Date.now() - started)));
    }
  }

  async #settleIn() {
    const kinds = KINDS.flatMap((kind) => Array(STAYING_OF_A_KIND).fill(kind));
    this.staying = kinds.map((kind, number) => new Witness(this, kind, 1000 + number));
    for (const witness of this.staying) {
      await witness.client.open();
      CHANNELS.forEach((channel) => witness.client.subscribe(channel));
    }
    for (const channel of CHANNELS) {
      await until(async () => (await this.stack.count(channel)) === this.staying.length, `all to be in ${channel}`, 30_000);
    }
  }

  #publish(source) {
    return this.#every((1000 * 2) / RATE, `publishing by ${source}`, async () => {
      const channel = pick(CHANNELS);
      const key = `${channel} by ${source}`;
      const data = { key, n: this.sent[key] ?? 0, pad: 'x'.repeat(between(50, 2000)) };
      if (source === 'http') {
        this.sent[key] = data.n + 1;
        await this.stack.publishHttp(channel, 'sent', data);
      } else if (!this.redisIsAway) {
        this.sent[key] = data.n + 1;
        const listeners = await this.stack.redis.publish(channel, 'sent', data);
        if (listeners !== 1) throw new Error(`${listeners} servers listen`);
      }
      this.counts.add(`events by ${source}`);
    });
  }

  #whispers() {
    return this.#every(500, 'whispering', () => {
      const witness = pick(this.staying);
      const key = `whispers of ${witness.user}`;
      const n = this.sent[key] ?? 0;
      this.sent[key] = n + 1;
      witness.client.whisper('private-orders', 'client-typing', { key, n });
      this.counts.add('whispers');
    });
  }

  #churn() {
    return this.#every(1000 / CHURN, 'churn', () => {
      const visit = this.#visit().catch((error) => this.findings.add(`a visitor: ${error.message.replace(/\d+$/, 'N')}`));
      this.visitors.add(visit);
      visit.then(() => this.visitors.delete(visit));
    });
  }

  async #visit() {
    const kind = pick(KINDS);
    const wasAway = { redis: this.redisIsAway, app: this.appIsAway };
    const onEvent = (name, channel, status) => {
      if (name !== 'subscription_error') return;
      wasAway.redis ||= this.redisIsAway;
      wasAway.app ||= this.appIsAway;
      const isExpected = channel.includes('forbidden') ? status === 403 || wasAway.app : wasAway.app || (wasAway.redis && channel.startsWith('presence-'));
      (isExpected ? this.counts : this.findings).add(`subscription_error ${status} for ${channel.replace(/\d+/, 'N')}`);
    };
    const onEnd = (reason) => this.findings.add(`a visitor by ${kind.way} was disconnected: ${reason}`);
    const client = new Client(this.stack.port, kind, { cookie: `user=${Math.floor(between(1, 200))}`, onEvent, onEnd });
    this.counts.add(`visitors by ${kind.way}, Engine.IO ${kind.engine}`);
    await client.open();
    const rooms = Array.from({ length: between(1, 6) }, () => `${pick(['room', 'private-room', 'presence-room', 'presence-room'])}.${Math.floor(between(0, 30))}`);
    if (chance(0.1)) rooms.push('private-forbidden');
    if (chance(0.2)) rooms.push(pick(CHANNELS));
    rooms.forEach((room) => client.subscribe(room));
    // Some disconnect while the application is still being asked.
    if (chance(0.8)) {
      const end = Date.now() + between(500, LONGEST_STAY) * Math.random();
      while (Date.now() < end && !this.isOver) {
        await sleep(Math.min(1000, Math.max(0, end - Date.now())));
        const room = pick(rooms);
        if (chance(0.3)) client.whisper(room, 'client-visit', { at: Date.now() });
        if (chance(0.1)) client.emit('unsubscribe', { channel: room });
        if (chance(0.1)) client.subscribe(room);
      }
    }
    const manner = pick(['goodbye', 'goodbye', 'drop', 'drop', 'silent']);
    this.counts.add(`left by ${manner}`);
    await client.leave(manner);
    if (manner === 'silent') {
      await sleep(15_000);
      await client.leave('drop');
    }
  }

  /** One reader after the other stops reading during a flood of events of its own, until the server closes it. */
  #freezing(ms) {
    return this.#every(Math.min(60_000, ms / 4), 'freezing a reader', async () => {
      const client = new Client(this.stack.port, pick(KINDS));
      await client.open();
      client.subscribe('flood');
      await until(async () => (await this.stack.count('flood')) === 1, 'the reader to be in');
      client.freeze();
      await until(async () => {
        if (!this.redisIsAway) await this.stack.redis.publish('flood', 'sent', 'x'.repeat(FLOOD));
        return (await this.stack.count('flood')) === 0;
      }, 'a frozen reader to be closed', 60_000, 25);
      this.counts.add('frozen readers closed');
      await client.leave('drop');
    });
  }

  /** Redis and the application go down in turn. */
  async #outages(ms) {
    const pause = Math.min(45_000, ms / 6);
    for (let turn = 0; ; turn += 1) {
      for (const end = Date.now() + pause; Date.now() < end; await sleep(100)) if (this.isOver) return;
      try {
        await [this.#redisOutage, this.#appOutage, this.#redisOutage, this.#maintenance][turn % 4].call(this);
      } catch (error) {
        this.findings.add(`an outage: ${error.message}`);
      }
    }
  }

  async #redisOutage() {
    this.redisIsAway = true;
    // All events published before the outage have arrived by now.
    await sleep(500);
    await this.stack.restartRedis(between(500, 5_000));
    this.redisIsAway = false;
    this.counts.add('restarts of Redis');
    const everybody = this.staying.map((witness) => witness.user);
    await until(async () => {
      const present = new Set((await this.stack.users('presence-office')).map(Number));
      return everybody.every((user) => present.has(user));
    }, 'the members to be back after a restart of Redis', 30_000, 100);
  }

  async #appOutage() {
    this.appIsAway = true;
    await this.stack.app.down();
    await sleep(between(1_000, 4_000));
    await this.stack.app.up();
    this.counts.add('restarts of the application');
    // Clients that were queued for it have been answered by now.
    await sleep(3_000);
    this.appIsAway = false;
  }

  async #maintenance() {
    this.appIsAway = true;
    this.stack.app.isInMaintenance = true;
    await sleep(between(1_000, 4_000));
    this.stack.app.isInMaintenance = false;
    this.counts.add('maintenance of the application');
    await sleep(3_000);
    this.appIsAway = false;
  }

  /** Waits until the clients that stayed have received everything. */
  async #hasAll() {
    const missing = () => this.staying.flatMap((witness) => witness.missing());
    await until(() => missing().length === 0, 'the last events', 15_000, 100).catch(() => missing().forEach((text) => this.findings.add(text)));
  }
}

/** A client that stays for the round and counts received events. */
class Witness {
  constructor(round, kind, user) {
    Object.assign(this, { round, kind, user });
    this.next = {};
    this.client = new Client(round.stack.port, kind, {
      cookie: `user=${user}`,
      onEvent: (name, channel, data) => this.#check(name, channel, data),
      onEnd: (reason) => round.findings.add(`a client that stays (${this.#name}) was disconnected: ${reason}`),
    });
  }

  get #name() {
    return `${this.kind.way} ${this.kind.engine}`;
  }

  /** What has not arrived yet. A client does not receive its own whispers. */
  missing() {
    return Object.entries(this.round.sent)
      .filter(([key, count]) => key !== `whispers of ${this.user}` && (this.next[key] ?? 0) !== count)
      .map(([key]) => `lost at the end (${this.#name}): ${key.replace(/\d+/, 'N')}`);
  }

  #check(name, channel, data) {
    if (name === 'subscription_error') this.round.findings.add(`subscription_error ${data} for one that stays`);
    if (data?.key === undefined) return;
    this.round.counts.add('events checked');
    const next = this.next[data.key] ?? 0;
    if (data.n > next) this.round.findings.add(`lost (${this.#name}): ${data.key.replace(/\d+/, 'N')}`, data.n - next);
    if (data.n < next) this.round.findings.add(`out of order or twice (${this.#name}): ${data.key.replace(/\d+/, 'N')}`);
    this.next[data.key] = Math.max(next, data.n + 1);
  }
}
