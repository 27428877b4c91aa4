/** The view of a result by its kind and axes, never by its method: a new method needs nothing here. */

import type { CellHandler } from "../parts/panel";
import type { Result, Scores } from "../result";
import { CurveView } from "./curve";
import { ExamplesView } from "./examples";
import { ExplanationView } from "./explanation";
import { GraphView } from "./graph";
import { GridView } from "./grid";
import { LearnedView } from "./learned";
import { ListView } from "./list";
import { PanelsView } from "./panels";
import { TableView } from "./table";
import { TextView } from "./text";
import { TokenScoresView } from "./token_scores";

export const TEXT_AXES = ["unit", "position", "other_unit", "query", "key"];
const CURVE_AXES = ["fraction", "step"];

export interface ViewProps<Kind extends Result = Result> {
  result: Kind;
  onCell?: CellHandler | undefined;
  selected?: readonly number[] | null | undefined;
}

function ScoresView(p: ViewProps<Scores>) {
  const { axes, values } = p.result;
  if (values.shape.some((size) => size === 0)) return <p class="quiet">There are no values (axes {axes.join(", ")}).</p>;
  if (axes.length > 2) return <PanelsView {...p} />;
  if (axes.length === 2) return <GridView {...p} />;
  if (axes.length === 1 && TEXT_AXES.includes(axes[0]!)) return <TokenScoresView {...p} />;
  if (axes.length === 1 && CURVE_AXES.includes(axes[0]!)) return <CurveView {...p} />;
  return <ListView {...p} />;
}

export function View(p: ViewProps) {
  const { result } = p;
  switch (result.kind) {
    case "Scores": return <ScoresView {...p} result={result} />;
    case "Graph": return <GraphView key={result.id} result={result} />;
    case "Table": return <TableView result={result} />;
    case "Text": return <TextView result={result} />;
    case "Examples": return <ExamplesView result={result} />;
    case "Explanation": return <ExplanationView {...p} result={result} />;
    default: return <LearnedView result={result} />;
  }
}
