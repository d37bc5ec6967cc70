/** Waiting with a deadline. */

/** How long to wait for an expected event; generous, because the machine may be busy. */
export const DEADLINE_MS = Number(process.env.E2E_DEADLINE_MS ?? 20_000);

/** Thrown by a probe when further waiting is useless. */
export class GiveUp extends Error {}

/**
 * Probe until the result is truthy and return it; fail after the deadline.
 * `what` completes "timed out waiting for …"; it may be a function, called when the time is up.
 */
export async function until(probe, what, { deadline = DEADLINE_MS, interval = 20 } = {}) {
  const end = Date.now() + deadline;
  let problem = '';
  for (;;) {
    try {
      const value = await probe();
      if (value) return value;
      problem = '';
    } catch (error) {
      if (error instanceof GiveUp) throw error;
      problem = ` (${error.message})`;
    }
    if (Date.now() > end) {
      throw new Error(`timed out waiting for ${typeof what === 'function' ? what() : what}${problem}`);
    }
    await new Promise((resolve) => setTimeout(resolve, interval));
  }
}
