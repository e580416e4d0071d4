// The page "Clusters": the list of all, or the one that is asked for.

import { showCluster } from "./cluster.js";
import { showList } from "./list.js";

const asked = new URLSearchParams(location.search);
const main = document.querySelector("main");
if (asked.has("cluster")) showCluster(main, asked);
else showList(main);
