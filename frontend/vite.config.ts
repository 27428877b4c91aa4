import { defineConfig } from "vite";

// `npm run dev` talks to a server started with `pellucid serve`; the build goes into the Python package.
export default defineConfig({
  base: "./",
  build: { outDir: "../src/pellucid/web/static", emptyOutDir: true, target: "es2022", modulePreload: false },
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  server: { proxy: { "/api": "http://127.0.0.1:8400" } },
});
