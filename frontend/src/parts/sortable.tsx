/** A table that sorts by any of its columns; long ones are shown in pieces. */

import type { ComponentChildren } from "preact";
import { useMemo, useState } from "preact/hooks";
import { shade } from "../colours";
import { exact, label, numberFormat, plain, visible } from "../text";
import { largest } from "../colours";

export interface Column {
  name: string;
  /** Coloured on a scale of its own. */
  coloured?: boolean;
}

const PIECE = 300;

export function Sortable(p: { caption: string; columns: Column[]; rows: readonly (readonly unknown[])[]; onPick?: (row: number) => void }) {
  const [order, setOrder] = useState<{ column: number; down: boolean } | null>(null);
  const [shown, setShown] = useState(PIECE);
  const numeric = p.columns.map((_, c) => p.rows.length > 0 && p.rows.every((row) => typeof row[c] === "number" || row[c] === null));
  const scales = useMemo(
    () => p.columns.map((column, c) => (column.coloured ? largest(p.rows.map((row) => Number(row[c]))) : 0)),
    [p.rows, p.columns],
  );
  const sorted = useMemo(() => {
    const places = p.rows.map((_, i) => i);
    if (order === null) return places;
    const { column, down } = order;
    const sign = down ? -1 : 1;
    const value = (i: number) => p.rows[i]![column];
    return places.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (numeric[column]) return sign * ((Number.isFinite(x) ? Number(x) : -Infinity) - (Number.isFinite(y) ? Number(y) : -Infinity));
      return sign * String(x).localeCompare(String(y));
    });
  }, [p.rows, order]);
  const cell = (value: unknown, c: number): ComponentChildren => {
    if (typeof value !== "number") return plain(value);
    return p.columns[c]!.coloured ? numberFormat(scales[c]!)(value) : plain(value);
  };
  return (
    <div class={`wide ${p.rows.length > 30 ? "tall" : ""}`} role="region" aria-label={p.caption} tabIndex={0}>
      <table>
        <caption class="unseen">{p.caption}</caption>
        <thead>
          <tr>
            {p.columns.map((column, c) => (
              <th scope="col" key={c} class={numeric[c] ? "number" : ""}
                aria-sort={order?.column === c ? (order.down ? "descending" : "ascending") : "none"}>
                <button type="button" class="sort" onClick={() => setOrder({ column: c, down: order?.column === c ? !order.down : !!numeric[c] })}>
                  {label(column.name)}
                  <span aria-hidden="true">{order?.column === c ? (order.down ? " ↓" : " ↑") : ""}</span>
                </button>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {sorted.slice(0, shown).map((i) => (
            <tr key={i}>
              {p.rows[i]!.map((value, c) => (
                <td key={c} class={`${numeric[c] ? "number" : ""} ${typeof value === "number" && p.columns[c]!.coloured ? shade(value, scales[c]!) : ""}`}
                  title={typeof value === "number" ? exact(value) : typeof value === "string" && value.length > 60 ? visible(value) : undefined}>
                  {c === 0 && p.onPick ? <button type="button" class="plain" onClick={() => p.onPick!(i)}>{cell(value, c)}</button> : <bdi>{cell(value, c)}</bdi>}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      {shown < p.rows.length && (
        <button type="button" class="quiet-button" onClick={() => setShown(shown + 10 * PIECE)}>
          Show more of the {p.rows.length.toLocaleString("en")} rows
        </button>
      )}
    </div>
  );
}

/** A part that is only built when the reader opens it. */
export function Folded(p: { summary: string; open?: boolean; children: () => ComponentChildren }) {
  const [open, setOpen] = useState(p.open ?? false);
  return (
    <details open={open} onToggle={(event) => setOpen((event.currentTarget as HTMLDetailsElement).open)}>
      <summary>{p.summary}</summary>
      {open && p.children()}
    </details>
  );
}
