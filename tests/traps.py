"""
Wrong answers to the exercises, each a confusion that people really have. Two kinds of tests must
tell them from the right answer: ours (`make verify`), and those that students write (`make hunt`).
"""

from typing import NamedTuple


class Trap(NamedTuple):
    """A wrong answer: in the function of an exercise, the text `right` becomes `wrong`."""
    exercise: int
    confuses: str
    right: str
    wrong: str


TRAPS = [
    # 1: the mask that makes Socratic
    Trap(1, "the model learns the other role", 'turn["from"] == learn', 'turn["from"] != learn'),
    Trap(1, "everybody's words are learnt, whoever is to be trained",
         '(everything or turn["from"] == learn)', "True"),
    Trap(1, "the role label is learnt, too: the model writes its own prompt",
         'LABEL[turn["from"]]), everything)', 'LABEL[turn["from"]]), learnt)'),
    Trap(1, "the <s> that opens a turn is learnt, as in the authors' code, without being asked for",
         "everything or (compat and learnt)", "everything or learnt"),
    Trap(1, "the end of a turn is not learnt, so the model never stops",
         'add(tokenizer.encode(turn["value"]) + [tokenizer.eos], learnt)',
         'add(tokenizer.encode(turn["value"]), learnt)\n'
         "        add([tokenizer.eos], everything)"),
    Trap(1, "a turn that is marked as not to be learnt is learnt",
         'is_target(turn) and (everything or turn["from"] == learn)',
         'everything or turn["from"] == learn'),
    Trap(1, "a turn that is not to be learnt is not read either",
         "for turn in conversation:", "for turn in filter(is_target, conversation):"),
    Trap(1, "the assistant reads the human's intent", 'if intent and learn == "human":', "if intent:"),
    Trap(1, "the system line stands before every turn", 'before = ""', "before = tokenizer.system"),
    Trap(1, "with compat, the <s> of a turn that is not to be learnt counts", "(compat and learnt)",
         '(compat and turn["from"] == learn)'),
    Trap(1, "the human always speaks first", 'before + LABEL[turn["from"]]',
         'before + LABEL["human" if before else turn["from"]]'),
    # 2: the shift
    Trap(2, "the mask belongs to the input, not to the target", "zip(ids[1:], mask[1:])",
         "zip(ids[1:], mask)"),
    Trap(2, "targets are the inputs themselves", "zip(ids[1:], mask[1:])",
         "zip(ids, mask)"),
    Trap(2, "what does not count becomes token 0, and is learnt as such",
         "token if counts else IGNORE", "token if counts else 0"),
    Trap(2, "the last token is an input, though nothing follows it", "ids[:-1]", "ids"),
    # 3: the loss over target tokens
    Trap(3, "the targets, which are shifted already, are shifted again", "targets[learnt]",
         "targets.roll(-1, dims=1)[learnt]"),
    Trap(3, "the loss is that of the tokens read, not of those to follow", "targets[learnt]",
         "ids[learnt]"),
    Trap(3, "a token that is not learnt has a loss of 0 instead of none",
         "learnt = targets != IGNORE", "learnt = torch.ones_like(targets, dtype=torch.bool)"),
    Trap(3, "the losses are averaged, so that each batch weighs the same", 'reduction="none"',
         'reduction="mean"'),
    Trap(3, "bits instead of nats", 'reduction="none")', 'reduction="none") / math.log(2)'),
    Trap(3, "the loss is computed in the model's bfloat16", "logits.float()", "logits"),
    # 4: the plain sampling loop
    Trap(4, "the stop is returned as part of the text", 'return output, "stop"',
         'return output + [token], "stop"'),
    Trap(4, "what was given is returned with what was written", 'return output, "length"',
         'return ids + output, "length"'),
    Trap(4, "the limit counts what was given, too", "if len(output) == limit:",
         "if len(ids + output) >= limit:"),
    Trap(4, "the last token alone is read, as if there were a cache", "[ids + output]",
         "[(ids + output)[-1:]]"),
    Trap(4, "each token is drawn from what follows the given ids", "[:, -1]",
         "[:, len(ids) - 1]"),
    Trap(4, "a text that just fills the context is not read any more", "<= model.config.context",
         "< model.config.context"),
    Trap(4, "temperature, top_k and top_p are forgotten", ", **sampling).item()", ").item()"),
    # 5: when a dialogue has to stop
    Trap(5, "a question of nothing but spaces is a question", "question.strip()", "question"),
    Trap(5, "a label leaks only with the space at its end", "label.strip()", "label"),
    Trap(5, "only the other side's label is a leak", "LABEL.values()", '[LABEL["gpt"]]'),
    Trap(5, "a label in small letters is a leak, too", "mark in question",
         "mark.lower() in question.lower()"),
    Trap(5, "who says what the assistant said repeats a question", "turns[::2]", "turns"),
    Trap(5, "a question is compared with the last one alone", "turns[::2]", "turns[-2::2]"),
    Trap(5, "the first thanks end the dialogue", "earlier and is_courtesy(earlier[-1]) and ", ""),
    Trap(5, "thanks at any time before make these a repetition", "is_courtesy(earlier[-1])",
         "any(map(is_courtesy, earlier))"),
    Trap(5, "the assistant's thanks count as the human's", "is_courtesy(earlier[-1])",
         'is_courtesy(turns[-1]["value"])'),
    # 6: two speakers in turn
    Trap(6, "a last question is asked that nobody will answer",
         "for _ in range(rounds):\n"
         "            question = ask(turns)",
         "while True:\n"
         "            question = ask(turns)\n"
         "            if len(turns) == 2 * rounds:\n"
         "                break"),
    Trap(6, "the dialogue never ends: the limit of rounds is ignored", "for _ in range(rounds):",
         "while True:"),
    Trap(6, "rounds are counted as turns", "range(rounds)", "range(rounds // 2)"),
    Trap(6, "the roles are swapped",
         '"human", "value": question}]\n'
         "            # a question without its answer is never kept\n"
         '            turns = with_question + [{"from": "gpt"',
         '"gpt", "value": question}]\n'
         '            turns = with_question + [{"from": "human"'),
    Trap(6, "a question is kept though its answer never came",
         'with_question = turns + [{"from": "human", "value": question}]\n'
         "            # a question without its answer is never kept\n"
         '            turns = with_question + [{"from": "gpt", "value": answer(with_question)}]',
         'turns = turns + [{"from": "human", "value": question}]\n'
         '            turns = turns + [{"from": "gpt", "value": answer(turns)}]'),
    Trap(6, "the assistant does not see the question", "answer(with_question)", "answer(turns)"),
    Trap(6, "a question is answered, and paid for, before it ends the dialogue",
         "if reason := reason_to_stop(question, turns):",
         'answer(turns + [{"from": "human", "value": question}])\n'
         "            if reason := reason_to_stop(question, turns):"),
    Trap(6, "whoever ends it, and why, it is called an error", "str(end)", '"error"'),
    Trap(6, "any error ends the dialogue", "except DialogueEnd", "except Exception"),
    # 7: one update from micro-batches
    Trap(7, "the loss is a mean of the micro-batches' means",
         "nll(model, ids, targets).sum() / target_count",
         "nll(model, ids, targets).mean() / len(micro_batches)"),
    Trap(7, "the gradients are cleared for every micro-batch", "for ids, targets in micro_batches:",
         "for ids, targets in micro_batches:\n"
         "        model.zero_grad()"),
    Trap(7, "the gradients are never cleared", "\n        optimizer.zero_grad(set_to_none=True)", ""),
    Trap(7, "the optimizers step after every micro-batch", "total += loss.item()",
         "total += loss.item()\n"
         "        for optimizer in optimizers:\n"
         "            optimizer.step()"),
    Trap(7, "every micro-batch is clipped for itself", "loss.backward()",
         "loss.backward()\n"
         "        nn.utils.clip_grad_norm_(model.parameters(), clip)"),
    Trap(7, "the loss is that of the last micro-batch", "total += loss.item()",
         "total = loss.item()"),
    Trap(7, "padding and what is not learnt count as targets", "(targets != IGNORE).sum().item()",
         "targets.numel()"),
    Trap(7, "the targets of other processes do not count", "ranks.sum_over(own_targets)",
         "own_targets"),
    # 8: a win in both orders
    Trap(8, "the first order alone decides, and with it who was shown first",
         'winners == ("model_1", "model_1")', 'winners[0] == "model_1"'),
    Trap(8, "a win and a tie make three quarters of a win",
         "return 0.5", 'return 0.75 if set(winners) == {"model_1", "tie"} else 0.5'),
    Trap(8, "a game that is not lost is won: a win and a tie count as a win",
         'winners == ("model_1", "model_1")', '"model_1" in winners and "model_2" not in winners'),
    Trap(8, "the second order names places, so that model_2 in it is the model that was first",
         '("model_1", "model_1")', '("model_1", "model_2")'),
    Trap(8, "a failed judgment is a tie", "return np.nan", "return 0.5"),
    Trap(8, "half a judgment is enough: it failed only if both orders did",
         'if "error" in winners', 'if set(winners) == {"error"}'),
    # 9: the bootstrap of clustered turns
    Trap(9, "turns are drawn, as if those of a dialogue were independent",
         "_, cluster = np.unique(labels, return_inverse=True)", "cluster = np.arange(len(labels))"),
    Trap(9, "dialogues alone are drawn, though turns about the same thing hang together, too",
         "for labels in (rows, columns):", "for labels in (rows,):"),
    Trap(9, "a turn counts as often as its dialogue plus as often as its thing was taken",
         "weights *=", "weights = (weights if labels is columns else 0) +"),
    Trap(9, "dialogues are drawn once each: nothing varies",
         "rng.multinomial(count, np.full(count, 1 / count), size=draws)",
         "np.ones((draws, count))"),
    Trap(9, "a dialogue counts the same, however many turns it has",
         "times_drawn[:, cluster] ", "times_drawn[:, cluster] / np.bincount(cluster)[cluster] "),
    Trap(9, "a draw without any turn has the mean 0 / 0", "totals > 0", "totals >= 0"),
    Trap(9, "a turn counts once, however often its dialogue was taken",
         "times_drawn[:, cluster] ", "times_drawn[:, cluster] > 0 "),
    # 10: a user who hears no answer
    Trap(10, "the answers are left out, so that questions follow on questions",
         'heard.append(turn if turn["from"] == "human" else turn | {"value": ""})',
         'heard += [turn] if turn["from"] == "human" else []'),
    Trap(10, "the dialogue itself is emptied, also for those who may hear it",
         'turn | {"value": ""}', 'turn.update(value="") or turn'),
    Trap(10, "what else a turn says of itself is lost", 'turn | {"value": ""}',
         '{"from": "gpt", "value": ""}'),
    Trap(10, "the questions are emptied in place of the answers",
         'turn["from"] == "human"', 'turn["from"] == "gpt"'),
    # 11: a root mean square of 1
    Trap(11, "the mean is subtracted, as LayerNorm does", "x32 = x.float()",
         "x32 = x.float() - x.float().mean(dim=-1, keepdim=True)"),
    Trap(11, "eps is added beside the root, not under it",
         "torch.rsqrt(x32.pow(2).mean(dim=-1, keepdim=True) + self.eps)",
         "1 / (x32.pow(2).mean(dim=-1, keepdim=True).sqrt() + self.eps)"),
    Trap(11, "the mean is taken over the tokens, not over a token's numbers", "dim=-1", "dim=0"),
    Trap(11, "each vector gets a length of 1, not a root mean square of 1", ".mean(dim=-1",
         ".sum(dim=-1"),
    Trap(11, "squares are computed in float16, where they overflow", "x32 = x.float()", "x32 = x"),
    # 12: angles of rotary positions
    Trap(12, "positions begin at 0 in each call, as if no cache had read anything",
         "positions[..., None]", "torch.arange(positions.shape[-1])[..., None]"),
    Trap(12, "later pairs turn faster, not more slowly", "(-torch.arange", "(torch.arange"),
    Trap(12, "i is divided by the width, not by the number of pairs", "/ half)", "/ (2 * half))"),
    Trap(12, "the width of the model is taken for that of a head",
         "config.dim // config.heads // 2", "config.dim // 2"),
    Trap(12, "the first position is 1", "positions[..., None]", "(positions[..., None] + 1)"),
    # 13: rotating pairs by their angles
    Trap(13, "the sign is flipped: pairs turn the other way", "[-sin, sin]", "[sin, -sin]"),
    Trap(13, "neighbours make a pair, as in Meta's files",
         """torch.cat([cos, cos], dim=-1)                              # (T, E)
    sin = torch.cat([-sin, sin], dim=-1)
    return x * cos + x.roll(x.size(-1) // 2, dims=-1) * sin""",
         """cos.repeat_interleave(2, dim=-1)
    sin = torch.stack([-sin, sin], dim=-1).flatten(-2)
    return x * cos + x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2) * sin"""),
    Trap(13, "each number turns by itself, without the other of its pair",
         "x.roll(x.size(-1) // 2, dims=-1)", "x"),
    Trap(13, "the angles of each pair stand side by side, those of x half a head apart",
         "torch.cat([cos, cos], dim=-1)", "cos.repeat_interleave(2, dim=-1)"),
    Trap(13, "float32 angles turn bfloat16 into float32",
         "(part.to(x.dtype) for part in rope)", "rope"),
    # 14: attention spelled out
    Trap(14, "the softmax runs over the rows: each column's weights sum to 1", "softmax(dim=-1)",
         "softmax(dim=-2)"),
    Trap(14, "products are not divided by the root of E", " / math.sqrt(E)", ""),
    Trap(14, "heads share in turn: 0 with 2, 1 with 3",
         "k.repeat_interleave(H // K, dim=1)\n        v = v.repeat_interleave(H // K, dim=1)",
         "k.repeat(1, H // K, 1, 1)\n        v = v.repeat(1, H // K, 1, 1)"),
    Trap(14, "True is read as hidden, not as visible", "masked_fill(~visible",
         "masked_fill(visible"),
    Trap(14, "columns are hidden after the softmax, so that weights sum to less than 1",
         " + mask             # (B, H, T, S)\n    return scores.softmax(dim=-1) @ v",
         "\n    return (scores.softmax(dim=-1) * visible) @ v"),
    Trap(14, "without a mask everybody sees what comes later", ".tril()", ""),
    # 15: attention with a cache
    Trap(15, "a token sees the columns up to its number in this call, not to its position",
         "past_v, visible)", "past_v, None)"),
    Trap(15, "every row reads the first rows of the cache",
         "stored_k[chosen, :, :S].to(q.dtype)\n            past_v = stored_v[chosen, :, :S]",
         "stored_k[:len(tokens), :, :S].to(q.dtype)\n            past_v = stored_v[:len(tokens), :, :S]"),
    Trap(15, "what comes out stays in the order of the groups, not of the tokens", "y[:, tokens] = ",
         "y[:, :tokens.numel()].view(len(y), *tokens.shape, -1)[:] = "),
    Trap(15, "every layer reads the keys and values of the first",
         "self.k[layer], self.v[layer] ", "self.k[0], self.v[0] "),
    Trap(15, "new tokens are stored before the queries attend, but only their keys",
         "stored_v[columns] = v[0].transpose(0, 1).to(stored_v.dtype)", "pass"),
    Trap(15, "whatever attention is asked for, it is spelled out", "attention(mine", "eager(mine"),
    # 16: a low-rank change
    Trap(16, "the change is not scaled", "(self.B * self.scale)", "self.B"),
    Trap(16, "the change is scaled by alpha, not by alpha / rank", "(self.B * self.scale)",
         "(self.B * self.scale * len(self.A))"),
    Trap(16, "the change replaces what the frozen matrix gives", "self.linear(x) + change",
         "change"),
    Trap(16, "a nonlinearity stands between A and B, as in an adapter", "F.linear(x, A)",
         "F.relu(F.linear(x, A))"),
    # 17: merging the change
    Trap(17, "the merge forgets the scale", "self.scale * self.B", "self.B"),
    Trap(17, "the change replaces the weight", "self.linear.weight.float() + change", "change"),
    Trap(17, "the change is rounded before it is added, and small ones are lost",
         "self.linear.weight.float() + change",
         "self.linear.weight + change.to(self.linear.weight.dtype)"),
    Trap(17, "the bias is lost", "return self.linear",
         "self.linear.bias = None\n        return self.linear"),
    # 18: top-k and top-p
    Trap(18, "the token that crosses top_p is dropped", "p.cumsum(dim=-1) - p < top_p",
         "p.cumsum(dim=-1) <= top_p"),
    Trap(18, "nothing is kept when the first token alone is more than top_p",
         "p.cumsum(dim=-1) - p < top_p\n    allowed[:, 0] = True", "p.cumsum(dim=-1) <= top_p"),
    Trap(18, "the sums begin with the least likely token", "p.cumsum(dim=-1) - p",
         "p.flip(-1).cumsum(dim=-1).flip(-1) - p"),
    Trap(18, "top_p 0 leaves no token", "    allowed[:, 0] = True\n", ""),
    Trap(18, "top_k 0 is taken for no token, not for all", "    if top_k:\n        allowed",
         "    allowed"),
    Trap(18, "top_p counts shares of what top_k leaves, not of all",
         "allowed = p.cumsum(dim=-1) - p < top_p",
         "q = p / p[:, :top_k or None].sum(dim=-1, keepdim=True)\n"
         "    allowed = q.cumsum(dim=-1) - q < top_p"),
    Trap(18, "one token more is kept where the sum is exactly top_p", "< top_p", "<= top_p"),
    # 19: drawing by inverse CDF
    Trap(19, "u on a border draws the token before it, even one of weight 0", ", right=True", ""),
    Trap(19, "weights are taken for probabilities that sum to 1", "u.to(cdf) * total",
         "u.to(cdf)"),
    Trap(19, "u that rounds to 1 draws a token beyond the last",
         "index.minimum(torch.searchsorted(cdf, total))", "index"),
    Trap(19, "u that rounds to 1 draws the last token, though its weight may be 0",
         "torch.searchsorted(cdf, total))", "torch.tensor(p.size(-1) - 1))"),
    # 20: many texts at once
    Trap(20, "the first stop ends the whole batch", "unfinished -= 1", "unfinished = 0"),
    Trap(20, "all texts draw by the numbers of the first", "uniforms[len(rows)] if",
         "uniforms[0] if"),
    Trap(20, "texts come back in the order in which they end", "return rows",
         "return sorted(rows, key=lambda row: len(row.output))"),
    Trap(20, "new texts wait until all slots are free", "        while engine.free",
         "        while len(engine.rows) == len(rows) % slots and engine.free"),
    Trap(20, "a prompt that is too long is waited for, though it never takes a step",
         "engine.step()\n        for row in [row for row in engine.rows if not row.busy]:",
         "for row in engine.step():"),
    Trap(20, "slots that do not fit into memory are taken, too",
         "min(slots, len(prompts), rows_that_fit(model))", "min(slots, len(prompts))"),
    # 21: which errors go away
    Trap(21, "a wrong key is tried again", "(408, 409, 425, 429)", "(401, 408, 409, 425, 429)"),
    Trap(21, "every error is tried again", "status >= 500", "status >= 400"),
    Trap(21, "no error that the request is blamed for (4xx) goes away",
         "status in (408, 409, 425, 429)", "False"),
    Trap(21, "only the best known errors of servers go away", "status >= 500",
         "status in (500, 502, 503, 504)"),
    Trap(21, "a redirect goes away", "status >= 500", "not 400 <= status < 500"),
    # 22: waiting before the next try
    Trap(22, "there is no end to the tries", "failures == TRIES or ", ""),
    Trap(22, "answers are paid for that give nothing, as often as there are tries",
         "wasted == WASTED or ", ""),
    Trap(22, "the bound of the wait does not grow", "min(60, 2 ** (failures - 2))", "0.5"),
    Trap(22, "the bound of the wait grows for ever", "min(60, 2 ** (failures - 2))",
         "2 ** (failures - 2)"),
    Trap(22, "the wait is the bound itself, so that all come back at once",
         "random.uniform(0, min(60, 2 ** (failures - 2)))", "min(60, 2 ** (failures - 2))"),
    Trap(22, "half of the bound is always waited", "random.uniform(0, min(60, 2 ** (failures - 2)))",
         "min(60, 2 ** (failures - 2)) * random.uniform(0.5, 1)"),
    Trap(22, "a wait that the server asks for is ignored", "wait = failure.wait or ", "wait = "),
    Trap(22, "a server that asks for no wait is asked again at once, over and over",
         "failure.wait or random.uniform(0, min(60, 2 ** (failures - 2)))",
         "random.uniform(0, min(60, 2 ** (failures - 2))) if failure.wait is None else failure.wait"),
    Trap(22, "there is no end to the patience", " or elapsed + wait > self.patience", ""),
    Trap(22, "patience looks at the seconds that are over, not at the wait to come",
         "elapsed + wait > self.patience", "elapsed > self.patience"),
    Trap(22, "what the server said is swallowed", "{more}: {failure}", "{more}"),
    # 23: reserving the worst case
    Trap(23, "what is in flight does not count",
         "self.has_to_wait(self.reservation(price, tokens, model))",
         "self.spent + self.reservation(price, tokens, model).dollars > self.cap"),
    Trap(23, "who is woken has room, whoever was faster", "while self.has_to_wait",
         "if self.has_to_wait"),
    Trap(23, "who finds no room waits, even if nothing is in flight",
         "                if not self.open:\n"
         '                    raise DialogueEnd("budget")\n', ""),
    Trap(23, "whether the run is over is asked before the wait alone",
         "            while self.has_to_wait(self.reservation(price, tokens, model)):\n"
         "                if not self.open:\n"
         '                    raise DialogueEnd("budget")\n'
         "                self.changed.wait()\n"
         "            if self.stop.is_set():\n"
         "                raise RunStopped\n",
         "            if self.stop.is_set():\n"
         "                raise RunStopped\n"
         "            while self.has_to_wait(self.reservation(price, tokens, model)):\n"
         "                if not self.open:\n"
         '                    raise DialogueEnd("budget")\n'
         "                self.changed.wait()\n"),
    Trap(23, "what is reserved is what it was before the wait",
         "            while self.has_to_wait(self.reservation(price, tokens, model)):\n"
         "                if not self.open:\n"
         '                    raise DialogueEnd("budget")\n'
         "                self.changed.wait()\n"
         "            if self.stop.is_set():\n"
         "                raise RunStopped\n"
         "            reservation = self.reservation(price, tokens, model)\n",
         "            reservation = self.reservation(price, tokens, model)\n"
         "            while self.has_to_wait(reservation):\n"
         "                if not self.open:\n"
         '                    raise DialogueEnd("budget")\n'
         "                self.changed.wait()\n"
         "            if self.stop.is_set():\n"
         "                raise RunStopped\n"),
    Trap(23, "a call is in flight before it is written down",
         '            self.note({"call": call, "reserved": reservation.dollars})\n'
         "            self.open[call] = reservation\n",
         "            self.open[call] = reservation\n"
         '            self.note({"call": call, "reserved": reservation.dollars})\n'),
    # 24: settling at the real cost
    Trap(24, "what was reserved is booked, not what it cost", "self.spent += cost",
         "self.spent += reservation.dollars"),
    Trap(24, "what a call reserved stays reserved", "\n                del self.open[call]", ""),
    Trap(24, "nobody who waits is woken", "\n                self.changed.notify_all()", ""),
    Trap(24, "only one of those who wait is woken", "notify_all", "notify"),
    Trap(24, "an error that cost nothing counts as an answer without a report", "elif cost:",
         "else:"),
    Trap(24, "what a report has taught is forgotten at the next start", "row |= self.learn_from",
         "self.learn_from"),
    Trap(24, "a full disk leaves the call in flight for ever",
         "            try:\n"
         "                if usage:\n"
         "                    row |= self.learn_from(usage, reservation, cost)\n"
         "                elif cost:\n"
         "                    self.silent[reservation.model] += 1\n"
         "                self.note(row)\n"
         "            finally:\n"
         "                self.spent += cost\n"
         "                del self.open[call]\n"
         "                self.changed.notify_all()\n",
         "            if usage:\n"
         "                row |= self.learn_from(usage, reservation, cost)\n"
         "            elif cost:\n"
         "                self.silent[reservation.model] += 1\n"
         "            self.note(row)\n"
         "            self.spent += cost\n"
         "            del self.open[call]\n"
         "            self.changed.notify_all()\n"),
    # 25: replaying what the journal holds
    Trap(25, "a speaker counts its own calls, though a history holds both sides",
         "    def replay(turns):\n"
         "        if len(turns) < len(history):\n"
         '            return history[len(turns)]["value"]\n',
         "    rest = iter(history)\n\n"
         "    def replay(turns):\n"
         "        for turn in rest:\n"
         '            return turn["value"]\n'),
    Trap(25, "the last turn of the history is bought once more", "len(turns) < len(history)",
         "len(turns) < len(history) - 1"),
    Trap(25, "what is repeated is bought as well, and thrown away", "def replay(turns):",
         "def replay(turns):\n"
         "        text = speak(turns)"),
    Trap(25, "a speaker gives the whole turn, and not its text", 'history[len(turns)]["value"]',
         "history[len(turns)]"),
    # 26: lexical diversity: the factors of MTLD
    Trap(26, "the last, incomplete stretch is dropped",
         " + (1 - len(seen) / count) / (1 - threshold)", ""),
    Trap(26, "the last, incomplete stretch counts as a whole one",
         " + (1 - len(seen) / count) / (1 - threshold)", " + 1"),
    Trap(26, "the whole way is taken for as long as the threshold, not as 1 minus it",
         "(1 - len(seen) / count) / (1 - threshold)", "(1 - len(seen) / count) / threshold"),
    Trap(26, "a share at the threshold is not low enough", "<= threshold", "< threshold"),
    Trap(26, "a word that an earlier stretch had is not new in this one",
         "complete += 1\n            seen, count = set(), 0", "complete += 1\n            count = 0"),
    Trap(26, "the word that completes a stretch begins the next one as well",
         "complete += 1\n            seen, count = set(), 0",
         "complete += 1\n            seen, count = {word}, 1"),
    # 27: finding near-duplicates
    Trap(27, "a key in common is taken for proof, and nothing is compared",
         " if jaccard(self.sets[i], hashes) >= self.threshold", ""),
    Trap(27, "every earlier set is compared, which is what the keys are there to avoid",
         "sorted(candidates)", "range(len(self.sets))"),
    Trap(27, "all keys have to be in common",
         "candidates.update(self.bands.get(key, ()))",
         "found = self.bands.get(key, ())\n"
         "            candidates = candidates & {*found} if key[0] else {*found}"),
    Trap(27, "the last key alone counts", "candidates.update(self.bands.get(key, ()))",
         "candidates = {*self.bands.get(key, ())}"),
    Trap(27, "the index is the share of this set that is in the other, so that parts are duplicates",
         "jaccard(self.sets[i], hashes)", "np.isin(hashes, self.sets[i]).mean()"),
    Trap(27, "the threshold itself is not similar enough", ">= self.threshold", "> self.threshold"),
    Trap(27, "an empty set is asked for its keys, and has none",
         "        if not len(hashes):\n            return []\n", ""),
    # 28: the area under the ROC curve
    Trap(28, "a tie counts as won", "- (counts - 1) / 2", "+ 0"),
    Trap(28, "a tie counts as lost", "- (counts - 1) / 2", "- counts + 1"),
    Trap(28, "ranks are counted from 0", "- (counts - 1) / 2", "- (counts + 1) / 2"),
    Trap(28, "the classes are exchanged: how often 0 scores above 1", "return float((rank_sum",
         "return 1 - float((rank_sum"),
    Trap(28, "a rank is the position in the list, whatever the scores",
         "ranks[index][y == 1]", "np.arange(1, len(y) + 1)[y == 1]"),
    Trap(28, "without a class the scores are called as good as a coin", "return None", "return 0.5"),
    Trap(28, "only an empty class 1 gives None", "not ones or not zeros", "not ones"),
    Trap(28, "the scores are taken to be sorted: a tie is one of neighbours",
         "_, index, counts = np.unique(scores, return_inverse=True, return_counts=True)",
         "changes = np.append(True, scores[1:] != scores[:-1])\n"
         "    index, counts = changes.cumsum() - 1, np.diff([*np.flatnonzero(changes), len(y)])"),
    # 29: agreement beyond chance
    Trap(29, "the share of agreement is taken for kappa, whatever chance gives",
         "(agreed - chance) / (1 - chance)", "agreed"),
    Trap(29, "chance is taken off, but what could be reached at most is not looked at",
         "(agreed - chance) / (1 - chance)", "agreed - chance"),
    Trap(29, "by chance all labels are as frequent", "sum(products) / len(a) ** 2",
         "1 / len({*a, *b})"),
    Trap(29, "both raters choose with the same frequencies, the mean of theirs (Scott's pi)",
         "[frequencies_a[label] * frequencies_b[label] for label in frequencies_a]",
         "[n * n / 4 for n in (frequencies_a + frequencies_b).values()]"),
    Trap(29, "where nothing could be better than chance, agreement is called perfect",
         "return None", "return 1.0"),
    # 30: a permutation test
    Trap(30, "one side alone is looked at", "np.abs(signs @ differences) >= abs(differences.sum())",
         "signs @ differences >= differences.sum()"),
    Trap(30, "only a larger mean counts, not one as large",
         ">= abs(differences.sum()) - 1e-9", "> abs(differences.sum()) + 1e-9"),
    Trap(30, "differences are left out at random, instead of changing their sign",
         "product((-1, 1), repeat=n)", "product((0, 1), repeat=n)"),
    Trap(30, "p can be 0: the observed signs are not counted",
         "(as_large.sum() + 1) / (draws + 1)", "as_large.mean()"),
    Trap(30, "all signs of a draw are the same", "size=(draws, n)", "size=(draws, 1)) * np.ones((1, n)"),
    Trap(30, "p is the share of patterns that give less", "return as_large.mean()",
         "return 1 - as_large.mean()"),
    # 31: an interval over whole questions
    Trap(31, "the mean is that of the questions' means", "sums.sum() / counts.sum()",
         "(sums / np.maximum(counts, 1)).mean()"),
    Trap(31, "in a draw a question of one value weighs as much as one of ninety",
         "drawn_sums[usable] / drawn_counts[usable]",
         "(sums / np.maximum(counts, 1))[picks[usable]].mean(axis=1)"),
    Trap(31, "questions are not put back: each is drawn once, and nothing varies",
         "integers(len(sums), size=(draws, len(sums)))",
         "permuted(np.tile(np.arange(len(sums)), (draws, 1)), axis=1)"),
    Trap(31, "a draw has more questions than there are, which makes the interval narrow",
         "size=(draws, len(sums))", "size=(draws, 100)"),
    Trap(31, "5 % are cut off at each end, which is a 90 % interval", "[2.5, 97.5]", "[5, 95]"),
    Trap(31, "a draw without values has the mean 0 / 0", "drawn_counts > 0", "drawn_counts >= 0"),
    Trap(31, "a question without values counts as one: the interval has no width",
         "(counts > 0).sum() == 1", "len(counts) == 1"),
    # 32: warm-up, then half a cosine
    Trap(32, "the first step has the rate 0, and learns nothing", "(step + 1)", "step"),
    Trap(32, "the cosine begins at the first step, so that the rate falls by a jump after warm-up",
         "(step - warmup_steps) / max(1, steps - warmup_steps)", "step / steps"),
    Trap(32, "the cosine ends too late: it is as long as all steps together",
         "max(1, steps - warmup_steps)", "steps"),
    Trap(32, "a whole cosine: the rate climbs again in the second half", "math.pi", "2 * math.pi"),
    Trap(32, "a warm-up that ends between two steps passes the peak",
         "min(1, (step + 1) / warmup_steps)", "((step + 1) / warmup_steps)"),
    Trap(32, "a straight line leads down, not a cosine", "peak * (1 + math.cos(angle)) / 2",
         "peak * (1 - angle / math.pi)"),
]
