import "./style.css";
import { render } from "preact";
import { takeToken } from "./api";
import { App } from "./app";
import { followTheSystem } from "./colours";

takeToken();
followTheSystem();
render(<App />, document.getElementById("page")!);
