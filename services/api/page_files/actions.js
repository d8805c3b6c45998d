// What an operator may do. Each asks first, says what it does, and takes the reason for the audit.

import { ask, part } from "./api.js";
import { fill, h, say } from "./dom.js";

/** Buttons for one thing; nothing for a reader. */
export const actionsFor = {
  host: (app, host) => group(app, [
    host.drained_reason === null
      ? button("Drain", () => drain(host.name ?? host.host, null))
      : button("Undrain", () => undrain(host.name ?? host.host, null)),
  ]),
  port: (app, host, port) => group(app, [
    port.notes.drained ? button("Undrain port", () => undrain(host.name, port.address)) : button("Drain port", () => drain(host.name, port.address)),
  ]),
  claim: (app, claim, history) => {
    const ended = ["released", "failed", "expired"].includes(claim.status);
    return group(app, [
      !ended && claim.status !== "releasing" && button("Release", () => release(claim)),
      history.steps.length > 0 && button("Retry the step", () => retry([claim.claim_id], null)),
      !ended && history.host_is_silent && button("Force release", () => forceRelease(claim)),
    ]);
  },
};

function group(app, buttons) {
  const shown = buttons.filter(Boolean);
  return app.isOperator && shown.length ? h("div", { class: "actions" }, shown) : null;
}

function button(words, act) {
  return h("button", { type: "button", onclick: act }, words);
}

const drain = (host, address) => confirm({
  title: address ? `Drain port ${address} of ${host}` : `Drain ${host}`,
  does: address
    ? "The port gets no new claims. Claims that hold it or its VFs stay until they are released."
    : "The host gets no new claims. Claims that it serves stay until they are released.",
  verb: "Drain",
  act: (reason) => ask(`hosts/${part(host)}/drain`, { body: { reason, address } }),
  done: ({ live_claims: left }) => `Drained. ${left} live claims are still there.`,
});

const undrain = (host, address) => confirm({
  title: address ? `Undrain port ${address} of ${host}` : `Undrain ${host}`,
  does: "It gets new claims again, and claims that wait may be served at once.",
  verb: "Undrain",
  needsReason: false,
  act: () => ask(`hosts/${part(host)}/undrain`, { body: { address } }),
  done: () => "It takes claims again.",
});

const release = (claim) => confirm({
  title: `Release claim ${claim.claim_id}`,
  does: claim.status === "waiting"
    ? "The claim leaves its queue. It gets no devices."
    : `Instance ${claim.instance_id} loses ${claim.devices.length} device(s) on ${claim.host}: the agent detaches them, also from a running guest. They are free when it has confirmed that.`,
  verb: "Release",
  needsReason: false,
  act: () => ask(`claims/${part(claim.claim_id)}`, { method: "DELETE" }),
  done: () => "Its agent detaches the devices now.",
});

const forceRelease = (claim) => confirm({
  title: `Force the release of claim ${claim.claim_id}`,
  does: `The claim ends without its agent. Do it only if ${claim.host} will not come back: if a guest still runs there, two may use one device.`,
  verb: "Force release",
  act: (reason) => ask(`claims/${part(claim.claim_id)}/force-release`, { body: { reason } }),
  done: () => "The claim has ended.",
});

export const retry = (claimIds, host) => confirm({
  title: claimIds ? "Retry the step" : host ? `Retry all parked steps of ${host}` : "Retry all parked steps",
  does: "The step is sent to its agent now. An agent that has done it already answers with its result again.",
  verb: "Retry",
  act: (reason) => ask("steps:retry", { body: { claim_ids: claimIds, host, reason } }),
  done: ({ steps }) => `${steps} sent.`,
});

function confirm({ title, does, verb, act, done, needsReason = true }) {
  const before = document.activeElement;
  const reason = h("input", { id: "reason", maxlength: 1000, required: true, autocomplete: "off" });
  const wrong = h("p", { class: "wrong", role: "alert" });
  const go = h("button", { class: "primary" }, verb);
  const dialog = h("dialog", { "aria-labelledby": "dialog-title", onclose: () => { dialog.remove(); before?.focus?.(); } },
    h("form", { onsubmit: async (event) => {
      event.preventDefault();
      go.disabled = true;
      try {
        const answer = await act(reason.value.trim());
        say(done(answer));
        fill(dialog, h("p", { role: "status" }, done(answer)), h("div", { class: "row" }, h("button", { type: "button", class: "primary", autofocus: true, onclick: () => dialog.close() }, "Close")));
        dialog.querySelector("button").focus();
      } catch (error) {
        wrong.textContent = error.message;
        go.disabled = false;
      }
    } },
    h("h2", { id: "dialog-title" }, title), h("p", {}, does),
    needsReason && [h("label", { for: "reason" }, "Reason, for the audit"), reason],
    wrong,
    h("div", { class: "row" }, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), go)));
  document.body.append(dialog);
  dialog.showModal();
  (needsReason ? reason : go).focus();
}
