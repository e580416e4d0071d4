"""By what the runtime gives, on a result that all ranks have made."""

import practicus_runtime as pr
import torch
import torch.distributed as dist

group = pr.get_client()
total = torch.tensor([float(pr.context().rank + 1)])
dist.all_reduce(total, group=group)
pr.set_result({"sum": total.item(), "ranks": pr.context().world_size})
