/** Several attributions of one prediction side by side, with their agreement and the deletion check. */

import type { Method } from "../api";
import { Answered, Asking, MethodSelect } from "../parts/ask";
import { methodsOf, question } from "../question";
import { state, update } from "../state";
import { methodName } from "../text";

const UNITS = ["token", "word", "sentence", "line", "message"];

export function AttributionTab() {
  const methods = methodsOf("attribution");
  const together = methods.filter((one) => one.axes.length === 1 && one.axes[0] === "unit");
  const asked = state.value.asks.attribution ?? { method: "explain", parameters: {} };
  const chosen = Array.isArray(asked.parameters.methods) ? (asked.parameters.methods as string[]) : null;
  const put = (parameters: Record<string, unknown>) => update({ asks: { ...state.value.asks, attribution: { method: "explain", parameters } } });
  const choose = (list: string[] | null) => {
    const { methods: _, ...rest } = asked.parameters;
    put(list === null || list.length === 0 ? rest : { ...rest, methods: list });
  };
  const unit = String(asked.parameters.unit ?? "token");
  return (
    <>
      <div class="chooser" role="group" aria-label="Methods side by side">
        {chosen === null ? <span class="chip">Automatic choice</span> : chosen.map((name) => (
          <span class="chip" key={name}>{methodName(name)}<button type="button" aria-label={`Leave out ${methodName(name)}`} onClick={() => choose(chosen.filter((one) => one !== name))}>×</button></span>
        ))}
        <MethodSelect label="Add a method" none="Add a method" methods={together.filter((one: Method) => !chosen?.includes(one.name))} value="" onPick={(name) => name && choose([...(chosen ?? ["integrated_gradients", "occlusion"].filter((one) => one !== name && together.some((m) => m.name === one))), name])} />
        <label class="unit">by
          <select value={unit} onChange={(event) => {
            const { unit: _, ...rest } = asked.parameters;
            put(event.currentTarget.value === "token" ? rest : { ...rest, unit: event.currentTarget.value });
          }}>{UNITS.map((one) => <option key={one}>{one}</option>)}</select>
        </label>
      </div>
      <Answered question={question("explain", asked.parameters)} />
      <details class="more" open={"attribution.one" in state.value.asks}>
        <summary>One method with its own settings</summary>
        <Asking tab="attribution.one" methods={methods} />
      </details>
    </>
  );
}
