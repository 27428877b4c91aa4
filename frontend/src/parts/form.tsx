/** The settings of a method, drawn from its metadata; what is left alone is not sent. */

import type { Method, Parameter } from "../api";
import { label, spaced } from "../text";

const TYPED = ["int", "float", "bool", "text", "choice", "list", "mapping", "any"];
/** Said elsewhere on the page. */
const ELSEWHERE = ["target", "contrast", "corrupt"];

export function settings(method: Method): Parameter[] {
  return method.parameters.filter((one) => !ELSEWHERE.includes(one.name) && (TYPED.includes(one.kind) || one.also.some((kind) => TYPED.includes(kind))));
}

function shown(value: unknown): string {
  return value === null || value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value);
}

/** The text of a field as the value that the parameter takes; undefined means: leave the default. */
export function parsed(parameter: Parameter, text: string): unknown {
  if (text === "") return undefined;
  const kinds = [parameter.kind, ...parameter.also];
  const choice = parameter.choices.find((option) => String(option) === text);
  if (choice !== undefined) return choice;
  if ((kinds.includes("int") || kinds.includes("float")) && Number.isFinite(Number(text))) return Number(text);
  if (kinds.includes("list") || kinds.includes("mapping") || kinds.includes("any")) {
    try {
      return JSON.parse(text) as unknown;
    } catch {
      if (kinds.includes("list") && !kinds.includes("text")) {
        return text.split(",").map((part) => (Number.isFinite(Number(part)) && part.trim() !== "" ? Number(part) : part.trim()));
      }
    }
  }
  return text;
}

export function Form(p: { method: Method; values: Record<string, unknown>; onChange: (values: Record<string, unknown>) => void }) {
  const put = (name: string, value: unknown) => {
    const next = { ...p.values };
    if (value === undefined) delete next[name];
    else next[name] = value;
    p.onChange(next);
  };
  return (
    <div class="form">
      {settings(p.method).map((one) => {
        const value = p.values[one.name];
        const id = `set-${p.method.name}-${one.name}`;
        const kinds = [one.kind, ...one.also];
        const free = kinds.some((kind) => ["int", "float", "text", "list", "mapping", "any"].includes(kind));
        let field;
        if (one.kind === "bool") {
          field = <input id={id} type="checkbox" checked={(value ?? one.default) === true} aria-describedby={`${id}-doc`} onChange={(event) => put(one.name, event.currentTarget.checked === one.default ? undefined : event.currentTarget.checked)} />;
        } else if (one.kind === "choice" && !free) {
          field = (
            <select id={id} value={shown(value ?? one.default)} aria-describedby={`${id}-doc`} onChange={(event) => put(one.name, event.currentTarget.value === shown(one.default) ? undefined : parsed(one, event.currentTarget.value))}>
              {one.nullable && <option value="">as it comes</option>}
              {one.choices.map((option) => <option key={String(option)} value={String(option)}>{spaced(String(option))}</option>)}
            </select>
          );
        } else {
          const number = (one.kind === "int" || one.kind === "float") && one.also.length === 0;
          field = (
            <>
              <input id={id} type={number ? "number" : "text"} value={shown(value)} placeholder={shown(one.default) || "as it comes"} aria-describedby={`${id}-doc`}
                {...(number ? { step: one.kind === "int" ? 1 : "any", ...(one.min === null ? {} : { min: one.min }), ...(one.max === null ? {} : { max: one.max }) } : {})}
                {...(one.choices.length ? { list: `${id}-list` } : {})} onChange={(event) => put(one.name, parsed(one, event.currentTarget.value))} />
              {one.choices.length > 0 && <datalist id={`${id}-list`}>{one.choices.map((option) => <option key={String(option)} value={String(option)} />)}</datalist>}
            </>
          );
        }
        return (
          <div class="field" key={one.name}>
            <label for={id}>{label(spaced(one.name))}</label>
            {field}
            <small id={`${id}-doc`}>{label(one.doc, 300)}</small>
          </div>
        );
      })}
    </div>
  );
}
