/** Rows of plain values under named columns. */

import { Sortable } from "../parts/sortable";
import type { TableResult } from "../result";

export function TableView({ result }: { result: TableResult }) {
  return <Sortable caption={result.title || "Table"} columns={result.columns.map((name) => ({ name }))} rows={result.rows} />;
}
