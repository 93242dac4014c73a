"""
One training run on several processes, started by torch's own launcher:

    torchrun --nproc_per_node 4 train.py ...            each holds the whole model (DDP's way)
    torchrun --nproc_per_node 4 train.py ... --shard    each holds a part of it (FSDP2)

The run is the one of a single process, update by update: each computes its share of an update's
micro-batches, gradients are added up, and all divide by what was learnt in the whole update.
Not here: the loop (train.py), which can be read without this file.
"""

import os
import sys

import torch
import torch.distributed as dist

from platolm import Problem


class Alone:
    """A single process: nothing to share."""
    number, sharded = 0, False

    def first(self, function):
        """What function() returns; of several processes the first one calls it before the rest."""
        return function()

    def mine(self, batches):
        """This process's share of a list of batches; all shares are of one length."""
        return batches

    def total(self, value):
        """The sum of a number over all processes."""
        return value

    def add_up(self, model):
        """Each parameter's gradient summed over all processes, in place."""

    def state(self, model, optimizers):
        """What is needed to go on: the model's state and the optimizers' states, whole."""
        return model.state_dict(), [optimizer.state_dict() for optimizer in optimizers]

    def load(self, model, optimizers, state):
        """Take up what `state` returned."""
        model.load_state_dict(state[0])
        for optimizer, before in zip(optimizers, state[1]):
            optimizer.load_state_dict(before)


class Ranks(Alone):
    """One of several processes: number of size."""

    def __init__(self):
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if cuda else "gloo")
        self.number, self.size = dist.get_rank(), dist.get_world_size()
        self.device = "cuda" if cuda else "cpu"
        # one voice is enough
        if self.number:
            sys.stdout = open(os.devnull, "w")

    def first(self, function):
        if self.number:
            dist.barrier()
            return function()
        found = function()
        dist.barrier()
        return found

    def mine(self, batches):
        share = batches[self.number::self.size]
        # who has none left computes an empty one: all have to meet for each
        return share + [[]] * (-(-len(batches) // self.size) - len(share))

    def total(self, value):
        value = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(value)
        return value.item()

    def add_up(self, model):
        for p in model.parameters():
            if p.grad is not None:
                dist.all_reduce(p.grad)


class Shards(Ranks):
    """One of several processes that hold a model in parts: a layer is whole only while used."""
    sharded = True

    def split(self, model, precision):
        """Keep of each layer this process's part alone (Zhao et al. 2023, arXiv 2304.11277)."""
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
        dtype = torch.bfloat16 if precision == "bf16" else None
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        for part in [*model.layers, model]:
            fully_shard(part, mp_policy=policy)

    def add_up(self, model):
        # torch has met all processes on the way back, and left their mean
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


def ranks(shard):
    """The processes of this run, as torchrun has started them; Alone if it has not."""
    if "RANK" not in os.environ:
        if shard:
            raise Problem("--shard divides a model among processes: torchrun --nproc_per_node N")
        return Alone()
    return Shards() if shard else Ranks()
