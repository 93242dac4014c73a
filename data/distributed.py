"""
One training run on several processes, started by torch's own launcher:

    torchrun --nproc_per_node 4 train.py ...            each holds the whole model (DDP's way)
    torchrun --nproc_per_node 4 train.py ... --shard    each holds a part of it (FSDP2)

The run is the one of a single process, update by update: each computes its share of an update's
micro-batches, gradients are added up, and all divide by what was learnt in the whole update. (In
float32. With bf16, FSDP2 keeps more between the layers in bf16 than a single process does.)
Not here: the loop (train.py), which can be read without this file.
"""

import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

from data.program import UserError


class SingleProcess:
    """A single process: nothing to share."""
    rank, size, sharded = 0, 1, False

    def first_then_rest(self, function):
        """What function() returns; of several processes the first one calls it before the rest."""
        return function()

    def my_share(self, batches):
        """This process's share of a list of batches; all shares are of one length."""
        return batches

    def sum_over(self, value):
        """The sum of a number over all processes."""
        return value

    def sum_gradients(self, model):
        """Each parameter's gradient summed over all processes, in place."""

    def state(self, model, optimizers):
        """What is needed to go on: the weights that are trained, the optimizers' states; whole."""
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        return trained, [optimizer.state_dict() for optimizer in optimizers]

    def load(self, model, optimizers, state):
        """Take up what `state` returned."""
        # what is frozen, or tied to another, is not in it
        model.load_state_dict(state[0], strict=False)
        for optimizer, before in zip(optimizers, state[1]):
            optimizer.load_state_dict(before)

    def close(self):
        """The run is over."""


class DataParallel(SingleProcess):
    """One of several processes: number of size."""

    def __init__(self):
        local, gpu = int(os.environ["LOCAL_RANK"]), None
        if torch.cuda.is_available():
            if local >= torch.cuda.device_count():
                raise UserError(f"--nproc_per_node: there are {torch.cuda.device_count()} GPUs")
            gpu = torch.device("cuda", local)
            torch.cuda.set_device(gpu)
        # while the first one writes a large checkpoint, the others wait
        dist.init_process_group("nccl" if gpu else "gloo", timeout=timedelta(hours=2),
                                device_id=gpu)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.device = gpu or "cpu"
        # one voice is enough
        if self.rank:
            sys.stdout = open(os.devnull, "w")

    def first_then_rest(self, function):
        if self.rank:
            dist.barrier()
            return function()
        found = function()
        dist.barrier()
        return found

    def my_share(self, batches):
        share = batches[self.rank::self.size]
        # who has none left computes an empty one: all have to meet for each
        return share + [[]] * (-(-len(batches) // self.size) - len(share))

    def sum_over(self, value):
        value = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(value)
        return value.item()

    def sum_gradients(self, model):
        for p in model.parameters():
            if p.grad is not None:
                dist.all_reduce(p.grad)

    def close(self):
        dist.destroy_process_group()


class ShardedParallel(DataParallel):
    """One of several processes that hold a model in parts: a layer is whole only while used."""
    sharded = True

    def shard_model(self, model, dtype, precision):
        """
        Keep of each layer this process's part alone (Zhao et al. 2023, arXiv 2304.11277), in
        dtype; layer by layer, so that the whole is nowhere but in the precision of its file.
        """
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
        computed = torch.bfloat16 if precision == "bf16" else None
        policy = MixedPrecisionPolicy(param_dtype=computed, reduce_dtype=torch.float32)
        for part in [*model.layers, model]:
            fully_shard(part.to(dtype), mp_policy=policy)

    def sum_gradients(self, model):
        # on the way back FSDP took the mean over the processes; a sum is wanted
        for p in model.parameters():
            p.grad.mul_(self.size)

    def state(self, model, optimizers):
        from torch.distributed.checkpoint import state_dict as s
        how = s.StateDictOptions(full_state_dict=True, cpu_offload=True)
        return (s.get_model_state_dict(model, options=how),
                [s.get_optimizer_state_dict(model, one, options=how) for one in optimizers])

    def load(self, model, optimizers, state):
        from torch.distributed.checkpoint import state_dict as s
        how = s.StateDictOptions(full_state_dict=True)
        s.set_model_state_dict(model, state[0], options=how)
        for one, before in zip(optimizers, state[1]):
            s.set_optimizer_state_dict(model, one, before, options=how)


def start_ranks(shard):
    """The processes of this run, as torchrun has started them; Alone if it has not."""
    if not dist.is_torchelastic_launched():
        if shard:
            raise UserError("--shard divides a model among processes: torchrun --nproc_per_node N")
        return SingleProcess()
    return ShardedParallel() if shard else DataParallel()
