export const name = 'private-callback-refused-headers';
export const transports = ['websocket', 'polling'];

/** Headers that a client may not set, because they would change the request's target or its apparent sender. */
const DROPPED = {
  Host: 'other.test',
  'X-Forwarded-For': '10.0.0.1',
  'x-forwarded-host': 'other.test',
  'X-Forwarded-Proto': 'https',
  Forwarded: 'for=10.0.0.1',
  'X-Real-IP': '10.0.0.1',
  'Proxy-Authorization': 'Basic eA==',
  'Content-Type': 'application/json',
  'Content-Encoding': 'gzip',
  'Content-Length': '3',
  Connection: 'X-Tenant',
  'Keep-Alive': 'timeout=1',
  TE: 'trailers',
  Trailer: 'X-Tenant',
  Upgrade: 'h2c',
  'Transfer-Encoding': 'chunked',
  'X-HTTP-Method-Override': 'OPTIONS',
  'x_http_method_override': 'OPTIONS',
  'X-Method-Override': 'OPTIONS',
  'Accept-Encoding': 'gzip',
  'If-None-Match': '*',
  Range: 'bytes=0-0',
  'X-Original-URL': '/admin',
  'X-Rewrite-URL': '/admin',
  Proxy: 'http://other.test',
  'Remote-User': 'admin',
  'True-Client-IP': '10.0.0.1',
  'CF-Connecting-IP': '10.0.0.1',
};

export async function run(ctx) {
  ctx.laravel.respond('*', { body: true });
  const alice = await ctx.client('alice');
  let count = 0;
  const callback = async (headers) => {
    const channel = `private-h${++count}`;
    alice.emit('subscribe', { channel, auth: { headers } });
    await ctx.subscribed(channel, 1, 4_000);
    return ctx.laravel.requestsFor(channel)[0];
  };

  for (const [header, value] of Object.entries(DROPPED)) {
    await ctx.check(`${header} is dropped, its neighbours pass`, async () => {
      const { headers, body } = await callback({ 'X-Before': 'b', [header]: value, 'X-Tenant': 'acme' });
      ctx.assert.notEqual(headers[header.toLowerCase()], value);
      ctx.assert.equal(body, `channel_name=private-h${count}`);
      ctx.assert.equal(headers.host, `127.0.0.1:${ctx.laravel.port}`);
      ctx.assert.match(headers['content-type'], /^application\/x-www-form-urlencoded/);
      ctx.assert.equal(headers['content-length'], String(body.length));
      ctx.assert.deepEqual([headers['x-before'], headers['x-tenant']], ['b', 'acme']);
    });
  }
}
