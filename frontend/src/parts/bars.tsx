/** Next tokens with their probabilities; beside them, where given, what they were before. */

import { label, percent, word } from "../text";

export interface Bar {
  id: number;
  text: string;
  probability: number;
}

export interface BarsProps {
  name: string;
  items: Bar[];
  before?: Map<number, number>;
  target?: number | undefined;
  contrast?: number | undefined;
  onTarget?: (item: Bar) => void;
  onContrast?: (item: Bar) => void;
}

export function Bars(p: BarsProps) {
  return (
    <table class="bars">
      <caption class="unseen">{p.name}</caption>
      <thead class="unseen"><tr><th scope="col">token</th><td /><th scope="col">probability</th>{p.onTarget && <th scope="col">ask</th>}</tr></thead>
      <tbody>
        {p.items.map((item) => {
          const before = p.before?.get(item.id);
          const kind = item.id === p.target ? "target" : item.id === p.contrast ? "contrast" : "";
          return (
            <tr key={item.id} class={kind}>
              <th scope="row" title={JSON.stringify(item.text)}><bdi>{label(item.text, 40)}</bdi></th>
              <td class="track">
                {before !== undefined && <i class="before" style={{ width: `${(before * 100).toFixed(2)}%` }} />}
                <i style={{ width: `${(item.probability * 100).toFixed(2)}%` }} />
              </td>
              <td class="number">{before !== undefined && <span class="was">{percent(before)} → </span>}{percent(item.probability)}</td>
              {p.onTarget && p.onContrast && (
                <td class="choose">
                  <button type="button" aria-pressed={kind === "target"} title="explain this" aria-label={`why ${word(item.text)}`} onClick={() => p.onTarget!(item)}>why</button>
                  <button type="button" aria-pressed={kind === "contrast"} title="rather than this" aria-label={`not ${word(item.text)}`} onClick={() => p.onContrast!(item)}>not</button>
                </td>
              )}
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}
