"""
One training run on several processes, started by torch's own launcher:

    torchrun --nproc_per_node 4 train.py ...            each holds the whole model (as DDP does)
    torchrun --nproc_per_node 4 train.py ... --shard    each holds a part of it (FSDP2)

The run equals that of a single process, update by update: each process computes its share of an
update's micro-batches, gradients are summed, and all divide by the target tokens of the whole
update. (In float32. In bf16, FSDP2 keeps more between the layers in bf16 than one process does.)
"""

import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

from data.program import UserError


class SingleProcess:
    """The only process: there is nothing to share, to sum or to wait for."""
    rank, size, sharded = 0, 1, False

    def first_then_rest(self, function):
        """Return function(); of several processes the first calls it before the others do."""
        return function()

    def my_share(self, batches):
        """Return this process's share of a list of batches; all shares are of one length."""
        return batches

    def sum_over(self, value):
        """Return the sum of a number over all processes."""
        return value

    def sum_gradients(self, model):
        """Sum each parameter's gradient over all processes, in place."""

    def state(self, model, optimizers):
        """Return what is needed to resume: the trained weights, and the optimizers' states."""
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        return trained, [optimizer.state_dict() for optimizer in optimizers]

    def load(self, model, optimizers, state):
        """Load what `state` returned."""
        weights, optimizer_states = state
        # frozen and tied parameters are not in it
        model.load_state_dict(weights, strict=False)
        for optimizer, saved in zip(optimizers, optimizer_states):
            optimizer.load_state_dict(saved)

    def close(self):
        """End the process group."""


class DataParallel(SingleProcess):
    """One of several processes, each with the whole model: process `rank` of `size`."""

    def __init__(self):
        local = int(os.environ["LOCAL_RANK"])
        gpu = None
        if torch.cuda.is_available():
            if local >= torch.cuda.device_count():
                raise UserError(f"--nproc_per_node: there are {torch.cuda.device_count()} GPUs")
            gpu = torch.device("cuda", local)
            torch.cuda.set_device(gpu)
        # the others wait while the first one writes a large checkpoint
        dist.init_process_group("nccl" if gpu else "gloo", timeout=timedelta(hours=2),
                                device_id=gpu)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.device = gpu or "cpu"
        # only rank 0 prints
        if self.rank != 0:
            sys.stdout = open(os.devnull, "w")

    def first_then_rest(self, function):
        if self.rank != 0:
            dist.barrier()
            return function()
        result = function()
        dist.barrier()
        return result

    def my_share(self, batches):
        share = batches[self.rank::self.size]
        longest = -(-len(batches) // self.size)
        # a process without a batch computes an empty one: all have to take part in each
        return share + [[]] * (longest - len(share))

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
    """One of several processes that hold a part each: a layer is complete only while in use."""
    sharded = True

    def shard_model(self, model, dtype, precision):
        """
        Keep this process's part of each layer (Zhao et al. 2023, arXiv 2304.11277), in dtype.

        Layer by layer, so that the complete model never exists in more than its file's precision.
        """
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
        computed = torch.bfloat16 if precision == "bf16" else None
        policy = MixedPrecisionPolicy(param_dtype=computed, reduce_dtype=torch.float32)
        for part in [*model.layers, model]:
            fully_shard(part.to(dtype), mp_policy=policy)

    def sum_gradients(self, model):
        # in backward FSDP took the mean over the processes; a sum is wanted
        for p in model.parameters():
            p.grad.mul_(self.size)

    def state(self, model, optimizers):
        from torch.distributed.checkpoint import state_dict
        options = state_dict.StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = state_dict.get_model_state_dict(model, options=options)
        return weights, [state_dict.get_optimizer_state_dict(model, optimizer, options=options)
                         for optimizer in optimizers]

    def load(self, model, optimizers, state):
        from torch.distributed.checkpoint import state_dict
        options = state_dict.StateDictOptions(full_state_dict=True)
        weights, optimizer_states = state
        state_dict.set_model_state_dict(model, weights, options=options)
        for optimizer, saved in zip(optimizers, optimizer_states):
            state_dict.set_optimizer_state_dict(model, optimizer, saved, options=options)


def start_ranks(shard):
    """Return the processes that torchrun started, sharded or not; without it, a SingleProcess."""
    if not dist.is_torchelastic_launched():
        if shard:
            raise UserError("--shard divides a model among processes: torchrun --nproc_per_node N")
        return SingleProcess()
    return ShardedParallel() if shard else DataParallel()
