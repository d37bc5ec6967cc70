/** All ways in which Laravel sends to a private channel: to everyone, to others than the sender, and as a notification. */
import assert from 'node:assert/strict';
import { USERS } from './laravel.mjs';

/** `ann` and `bob` are connected clients of these users. */
export async function allWaysArrive(ann, bob) {
  const anns = await ann.listen(ann.echo.private('orders.1'), 'OrderShipped');
  const bobs = await bob.listen(bob.echo.private('orders.1'), 'OrderShipped');
  const own = `App.Models.User.${USERS.bob.id}`;
  const notified = bob.record('a notification', (callback) => bob.echo.private(own).notification(callback));
  await bob.whenDelivering(`private-${own}`);

  const { socketId } = ann;
  await ann.visitor.ship({ id: 1, note: 'wörld ✓' }, ['private:orders.1', 'public:news'], { others: true, socketId });
  await ann.visitor.ship({ id: 2 }, ['private:orders.1'], { socketId });
  await ann.visitor.post(`/notify/${USERS.bob.id}`);

  assert.deepEqual(await bobs.next(), { order: { id: 1, note: 'wörld ✓' }, socket: socketId });
  assert.deepEqual(await anns.next(), { order: { id: 2 }, socket: null });
  assert.equal(anns.all.length, 1);
  assert.equal((await notified.next()).hello, 'wörld ✓');
}
