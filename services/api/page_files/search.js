// What somebody has typed: an instance, a claim, a host or an address.

import { ask, part } from "./api.js";
import { refusals } from "./refused.js";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** The parts of the path that shows it, or null. */
export async function find(app, words) {
  if (!words) return null;
  if (UUID.test(words)) {
    try {
      await ask(`claims/${part(words)}`);
      return ["claim", words];
    } catch (error) {
      if (error.status !== 404) throw error;
    }
    const every = ["waiting", "claimed", "prepared", "allocated", "releasing", "released", "failed", "expired"];
    const [refused, { claims }, ofInstance] = await Promise.all([
      refusals({ claim_id: words, limit: 1 }),
      ask("claims", { query: { instance_id: words, status: every, limit: 1 } }),
      refusals({ instance_id: words, limit: 1 }),
    ]);
    if (refused.length) return ["why", words];
    return claims.length || ofInstance.length ? ["instance", words] : null;
  }
  const [host, address] = words.split(/[\s/]+/);
  const exact = app.fleet.host(host);
  if (exact && address) {
    const port = exact.ports.find((each) => each.address.endsWith(address));
    if (port) return ["port", exact.name, port.address];
  }
  if (exact) return ["host", exact.name];
  for (const each of app.fleet.ordered) {
    const port = each.ports.find((one) => one.address === words || one.address === `0000:${words}`);
    if (port) return ["port", each.name, port.address];
  }
  const like = app.fleet.ordered.find((each) => each.name.includes(words));
  return like ? ["host", like.name] : null;
}
