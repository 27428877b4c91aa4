/** A tab that is one question at a time: lens, attention, graph, and whatever fits no other tab. */

import type { Method, Question } from "../api";
import { Asking } from "../parts/ask";
import { methodsOf } from "../question";
import { type Ask, setView, state } from "../state";

/** What a tab asks by itself, if that method is there: the field's first look at the matter. */
const FIRST: Record<string, string> = { lens: "logit_lens", attention: "attention_views", graph: "information_flow_routes" };

function first(tab: string, methods: Method[]): Ask | undefined {
  const wanted = FIRST[tab];
  if (wanted === undefined) return undefined;
  const found = methods.find((one) => one.name === wanted) ?? methods[0];
  return found && { method: found.name, parameters: {} };
}

/** What a method takes that is no prompt: the lines of a box, or JSON. */
function input(method: Method): Partial<Question> & { input?: unknown } | null {
  const s = state.value;
  if (method.takes === "prompt") return {};
  if (method.takes === "models") return { models: [s.model, ...(s.otherModel ? [s.otherModel] : [])] } as Partial<Question>;
  const text = s.view[`input.${method.takes}`] ?? "";
  if (text.trim() === "") return null;
  if (method.takes === "corpus") return { input: text.split("\n").filter((line) => line.trim() !== "") } as Partial<Question>;
  try {
    return { input: JSON.parse(text) as unknown } as Partial<Question>;
  } catch {
    return null;
  }
}

function Data({ takes }: { takes: string }) {
  if (["prompt", "models", "pair"].includes(takes)) return null;
  return (
    <label class="data">{takes === "corpus" ? "Texts, one to a line" : `Data (${takes}) as JSON`}
      <textarea rows={4} dir="auto" value={state.value.view[`input.${takes}`] ?? ""} onInput={(event) => setView(`input.${takes}`, event.currentTarget.value)} />
    </label>
  );
}

export function AskingTab({ tab }: { tab: string }) {
  const methods = methodsOf(tab);
  return <Asking key={tab} tab={tab} methods={methods} initial={first(tab, methods)} more={input} before={(method) => <Data takes={method.takes} />} />;
}
