"""Every setting of a dig_jax run, once, with its default and its comment.

An experiment is a small file that changes a few of these. Nothing else in the code base holds a default, so
what is written here (and in the experiment) is what runs; `workdir/config.json` keeps the resolved values.
Where the DiG paper (arXiv 2512.12633) gives no number, the default is EasyR1's, which the paper trained with.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the defaults: GRPO on a Qwen3-VL folder, to be completed with `model_path` and `data.train`."""
    config = ConfigDict()

    # "grpo": reward only. "sft": supervised answers (warm-up). "distill": what a teacher who sees the truth
    # says of what the model draws (`distill` below), and no reward.
    config.algorithm = "grpo"
    # What is asked: "differences" | "referring" | "choice" | "yes_no" | "conversation" | "describe" | one of
    # task_file.
    config.task = "differences"
    config.task_file = ""  # Python file with tasks of your own (--task_file=FILE.py): docs/add_a_task.md
    config.seed = 0  # order of the data, sampling noise, augmentation
    # Training steps; one step is one rollout (grpo) or one batch (sft). With a curriculum: of each stage.
    config.num_steps = 45
    # Above 0: as many steps as are so many passes over all training examples, in place of num_steps. A stage
    # of a curriculum that sets this sets no num_steps.
    config.num_epochs = 0.0
    config.model_path = (
        ""  # Hugging Face folder, hub id, or workdir: architecture, tokenizer, reference weights
    )
    config.init_from = (
        ""  # workdir of an earlier stage whose newest parameters to start from; "" = model_path
    )

    # Folder (or gs://) where compiled programs wait for the next start; {workdir} is that of the run, another
    # may be shared by runs. "" = nowhere. Where JAX_COMPILATION_CACHE_DIR is set, it is used instead.
    config.compile_cache = "{workdir}/compile_cache"
    # GB of programs that a start leaves there: the oldest go, which changed code leaves behind. 0 = no bound.
    config.compile_cache_gb = 10.0

    config.curriculum = ConfigDict()  # stages of one run, one after another: dig_jax/run/curriculum.py
    config.curriculum.order = ()  # their names, as often as wanted; () = one stage, with the settings below
    config.curriculum.stages = ConfigDict()  # name -> the settings it changes, by their names in this file

    config.advance = ConfigDict()  # a stage ends after num_steps, or earlier: at an evaluation where ...
    # ... this metric, "single/f1" of the evaluation `single` (a key of evals.jsonl); of the main one where no
    # evaluation is named, ...
    config.advance.metric = "reward_sampled"
    config.advance.at = 0.0  # ... is this high or higher; 0 = never

    config.model = ConfigDict()
    config.model.dtype = "bfloat16"  # compute: "bfloat16" | "float32"
    # Parameters: "float32" | "bfloat16". Sums of gradients, moments and steps are float32 in either case: the
    # optimizer keeps the 16 bits that trained bfloat16 parameters lack, and they learn as float32 ones do.
    config.model.param_dtype = "float32"
    config.model.head_chunk = (
        64  # response positions per slice of the output head: bounds the memory for logits
    )
    # What the backward pass computes again instead of keeping. "full": each layer from its input, the least
    # memory, about a third more FLOPs. "dots": all but products with weights. "none": nothing.
    config.model.remat = "full"
    # Kernel of training and prefill. "plain": XLA, anywhere. "cudnn": NVIDIA GPUs from Ampere on. "splash":
    # TPUs. Kernels take bfloat16 alone. "auto": the platform's kernel where it can run, else "plain".
    config.model.attention = "auto"
    # Kernel of decoding. "plain": XLA, anywhere; it reads as much of every response's cache as the longest
    # one asks for. "ragged": TPUs, heads of a multiple of 128; it reads what is filled. "auto": that where it
    # can run, else "plain".
    config.model.decode_attention = "auto"
    # How a mixture's experts are computed, no choice ever dropped. "plain": every expert for every token,
    # anywhere. "loop": those chosen, anywhere. "triton": NVIDIA GPUs from Ampere on. "megablox": TPUs. These
    # two take bfloat16 alone. "auto": the platform's kernels where they can run, else "loop".
    config.model.experts = "auto"
    # Where experts are split over devices: the room of a buffer, as a multiple of an even share of choices.
    # What is more goes in a second round, and so on.
    config.model.expert_room = 1.5
    # Frozen parts are used as they are: no gradient, no weight decay, and no optimizer state unless another
    # stage of the run trains them. A stage may freeze other parts than the next: docs/training.md
    config.model.freeze_vision = False  # the vision tower, but for the projector
    config.model.freeze_projector = False  # merger and DeepStack mergers: image features to decoder width
    config.model.freeze_text = False  # decoder, embedding and output head
    config.model.freeze_router = False  # routers of experts, which freeze_text freezes too

    config.model.lora = ConfigDict()  # adapters of low rank are trained, and nothing else: docs/training.md
    config.model.lora.rank = 0  # 0 = off; EasyR1 takes 64, with optimizer.learning_rate=1e-5
    config.model.lora.alpha = 64.0  # the product of an adapter is scaled by alpha / rank
    # Regular expression for the whole path of a linear layer, such as text/layers/attn/q_proj,
    # text/layers/mlp/up_proj, vision/blocks/attn/qkv or vision/merger/fc1. Frozen parts get no adapters.
    config.model.lora.targets = "text/.*_proj"

    config.data = ConfigDict()
    # Folders or files that the task can open, dig_pairs folders above all; several are mixed uniformly over
    # their examples.
    config.data.train = ("",)
    config.data.train_split = "train"
    # Held-out data, short for entries of `evals` below with nothing but their data: a folder or file of the
    # main one (config.evals.main.data), and further ones, each "name=folder".
    config.data.eval = ""
    config.data.eval_extra = ()
    config.data.eval_split = "test"
    config.data.num_differences = ()  # keep only pairs with these numbers of differences; () = all
    # The text after the images; "" = the task's own. {width} and {height} become the size of the image as the
    # model sees it, {phrase} what "referring" asks for, {question} what "choice" and "yes_no" ask.
    config.data.question = ""
    # How answers write boxes: "thousandths" | "pixels" of the resized image | "unit", shares of the
    # square that the image is centred in, with three decimals. "" = as the model's makers do; another one has
    # to be learnt.
    config.data.box_convention = ""
    config.data.images = ""  # folder of the images that annotation files name; "" = that of the file
    config.data.min_pixels = 0  # image resize limits in pixels; 0 = those of the model folder
    config.data.max_pixels = 0
    # Pixels per image of the sizes that batches are padded to, such as (65536, 262144). A batch takes the
    # smallest that holds all its pairs; each compiles once. () = one per halving of max_pixels, where needed.
    config.data.buckets = ()
    # Tokens of further sizes, such as (768, 1024), where prompts of as many pixels are of very different
    # lengths (conversations): a batch takes the smallest that holds its longest; each compiles once.
    config.data.prompt_lengths = ()
    # Batches of pairs of one bucket: less padding, but sizes are not mixed. With a mixture, for sft alone,
    # each batch is then of one part.
    config.data.group_sizes = False
    config.data.max_bad_records = 0  # unreadable pairs to leave out, with a warning each; one more: stop
    config.data.prefetch = 2  # batches prepared ahead by a background thread

    config.data.augment = ConfigDict()  # each applied to a training pair with probability one half
    config.data.augment.flip_horizontal = False
    config.data.augment.flip_vertical = False
    config.data.augment.transpose = False  # square images only
    config.data.augment.swap_pair = False  # image A becomes image B
    config.data.augment.permute_channels = False  # the same permutation of R, G, B in both images

    # Several things to train on, in exact shares: name -> its weight, and those of the settings in this file
    # that it changes, by their names (dig_jax/run/mixture.py lists which), such as
    # {"pairs": {"weight": 3.0}, "phrases": {"weight": 1.0, "task": "referring", "data": {"train": ("x",)}}}.
    # An empty one is a run on data.train alone. docs/mixtures.md
    config.mixture = ConfigDict()

    config.batch = ConfigDict()
    config.batch.prompts = 512  # prompts per step
    config.batch.update_prompts = (
        128  # prompts per optimizer update; prompts / update_prompts updates per step
    )
    config.batch.update_epochs = 1  # times that updates go through a rollout: mu, ppo_epochs, num_iterations
    config.batch.micro_prompts = 8  # prompts per gradient-accumulation slice, over all devices
    # Completions of each of these prompts in a slice: fewer take less memory, and less padding where lengths
    # differ, but the prompt is computed again for each part of its group. 0 = all rollout.group_size.
    config.batch.micro_completions = 0
    # Lengths that the responses of a slice are padded to in updates, such as (512, 1024); one that is longer
    # is padded to rollout.max_new_tokens. () = a half and a quarter of that, from 128 tokens up.
    # (rollout.max_new_tokens,) = all alike. The update has a branch for each, which for a large model on a
    # TPU takes minutes to compile.
    config.batch.response_buckets = ()
    # When the parts of `mesh.data` sum their gradients: "micro_batch", after each, or "update", once for all.
    # "auto": once where data crosses from one TPU slice to another. Experts, whose loss is of all rows of a
    # micro-batch, sum after each. docs/scale.md
    config.batch.sum_gradients = "auto"
    config.batch.rollout_prompts = 64  # prompts sampled together, over all devices

    config.rollout = ConfigDict()
    config.rollout.group_size = 8  # G, completions per prompt
    # The pool that decodes: `rows` prompts at a time and rows * slots completions, any of theirs. When a
    # completion ends the next one of any of these prompts takes its slot; when all of a prompt are done the
    # next prompt takes its row. With G / 2 or G / 3 slots per row all slots stay busy where lengths differ
    # much. The response cache is rows * slots long, and all rows are read for every token.
    config.rollout.slots = 0  # for each row; 0 = G
    config.rollout.rows = 0  # over all devices; 0 = all of batch.rollout_prompts
    # Sampling may split the weights otherwise than training, over the same devices: fsdp would gather all of
    # them for every token, so fsdp stays 1, and tensor is as large as a device's memory asks for.
    config.rollout.mesh = ConfigDict()
    config.rollout.mesh.data = -1
    config.rollout.mesh.fsdp = 1
    config.rollout.mesh.expert = 1  # the experts alone are split over it: as large as the memory asks for
    config.rollout.mesh.tensor = 1
    # The decoder layers' weights for sampling: "stacked", as in training, or "apart", in arrays of their own.
    # Apart, programs are longer and copy nothing. "auto": apart on GPUs, whose compiler copies.
    config.rollout.layers = "auto"
    # "": model.dtype. "int8": kernels of decoder layers, in training's rollouts alone; decoding reads half as
    # much. The sampler is another policy then: needs grpo.importance_cap, such as 2.0. docs/training.md
    config.rollout.weight_dtype = ""
    config.rollout.max_new_tokens = 2048
    config.rollout.temperature = 1.0
    # Filters make the sampler another policy than the trainer's: with either, set grpo.importance_cap too.
    config.rollout.top_p = 1.0  # 1 = off
    config.rollout.top_k = 0  # 0 = off

    config.grpo = ConfigDict()
    # "grpo" | "dr_grpo" (with normalize_std=False) | "gspo" (with loss_mean="sequence", clip_low=3e-4 and
    # clip_high=4e-4)
    config.grpo.loss = "grpo"
    config.grpo.loss_mean = (
        "token"  # "token": over all tokens of the update | "sequence": per completion first
    )
    config.grpo.normalize_std = True  # divide advantages by the group's standard deviation
    config.grpo.advantage_eps = 1e-6
    config.grpo.clip_low = 0.2
    config.grpo.clip_high = 0.3
    config.grpo.dual_clip = 3.0  # bound on the loss for negative advantages; 0 = off
    config.grpo.kl = "k3"  # "k1" | "k2" | "k3"
    config.grpo.kl_coef = 1e-2  # 0 = no reference model is kept
    # The reference is the model the run started from. True, in a stage: from there on, that it starts from.
    config.grpo.reanchor = False
    # Share of each token's weight in the loss, 0..1, that is in proportion to how much its log-prob owes to
    # the first image: one more pass, with that image blanked. 0 = off. docs/training.md
    config.grpo.visual_dependency = 0.0
    config.grpo.importance_cap = 0.0  # cap of the sampler/trainer importance weight; 0 = no correction
    config.grpo.dynamic_sampling = (
        0  # extra rollouts allowed per step to replace groups of equal reward; 0 = off
    )
    # Completions cut at rollout.max_new_tokens count in their group's mean and deviation, but their tokens
    # are left out of the loss (DAPO's overlong filtering): docs/thinking.md.
    config.grpo.mask_truncated = False
    # DAPO's soft overlong punishment: within the last `buffer` tokens before rollout.max_new_tokens the
    # reward falls linearly, by `penalty` at the end. In training alone: held-out rewards stay as they are.
    config.grpo.overlong = ConfigDict()
    config.grpo.overlong.buffer = 0  # tokens; 0 = off
    config.grpo.overlong.penalty = 0.5  # half the range of the reward, as in DAPO

    # Self-distillation: at every token that it draws, the model learns the distribution of a teacher, the
    # same model shown the truth. With algorithm = "grpo" beside the reward, with "distill" alone:
    # docs/training.md. loss_mean, mask_truncated and kl_coef of `grpo` hold there, too.
    config.distill = ConfigDict()
    config.distill.weight = 0.0  # of the divergence in the loss; 0 = off
    # What the teacher is shown. "boxes": the true boxes framed in all images. "crops": all images grey but
    # for the same crops around the true boxes.
    config.distill.privilege = "crops"
    # "policy": the weights that are trained, as they are. "reference": those of the KL reference.
    config.distill.teacher = "policy"
    config.distill.beta = 1.0  # 0: KL(teacher || student). 1: the reverse. Between: JSD of GKD, as in TRL

    config.moe = ConfigDict()  # models with experts alone: docs/experts.md, docs/moe.md
    # Weight of the routers' load-balancing loss in grpo and sft. transformers' own default for Qwen3-VL is
    # 0.001, and only where one asks for it; those who train by reward leave it off and watch the load.
    config.moe.router_loss_weight = 0.0
    # Experts that the tokens of a rollout go to in training. "off": those that the router chooses now. "old":
    # in updates, those that it chose before the first of them (R2). "rollout": those that the sampler chose,
    # in old log-probs too (R3).
    config.moe.replay = "off"
    # Steps between measurements of how far sampler and trainer are apart, with replay and without: share of
    # choices that differ, gap of log-probs (metrics moe/*). Two forward passes of one update each. 0 = off
    config.moe.measure_every = 0

    config.sft = ConfigDict()
    config.sft.answer_step = 1  # answers are rounded to multiples of this, in 0..1000
    config.sft.max_answer_tokens = 256
    # A conversation of several rounds is one sequence. The last answer is learnt, and so many tokens of those
    # before it (their end-of-turn tokens count): room for them is computed in every batch. 0 = the last alone
    config.sft.max_earlier_tokens = 0
    # Answers that are longer than these two numbers: False = an error, True = learnt as far as that goes
    config.sft.cut_answers = False
    config.sft.aux_weight = 0.0  # weight of the auxiliary loss "this image cell overlaps a true box"
    # Share of the answers given a wrong number of boxes, by leaving out or by adding random ones. A warm-up
    # on pairs of one number of differences would otherwise end so certain of it that GRPO never sees another.
    config.sft.count_noise = 0.0
    config.sft.count_noise_boxes = 3  # the most boxes of such an answer

    config.reward = ConfigDict()  # DESIGN of the reward: docs in dig_jax/tasks/differences/reward.py
    config.reward.f1_weight = 0.5
    config.reward.iou_weight = 0.5
    config.reward.format_weight = 0.1
    config.reward.iou_threshold = 0.5  # a matched pair counts as found from this IoU
    config.reward.iou_average = (
        "max"  # mean IoU is divided by max(N, M) ("max") or by matched pairs ("matched")
    )
    config.reward.l1_weight = 1.0  # matching cost
    config.reward.giou_weight = 1.0
    config.reward.max_boxes = 16  # boxes kept of one answer

    # What training raises: () = the task's own reward. Else the weighted sum of terms, each "name=weight":
    # "task" is that reward, other names are terms of the task ("iou", ...) or of rewards.file. A weight of 0
    # logs a term alone.
    config.rewards = ConfigDict()
    config.rewards.weights = ()
    config.rewards.file = ""  # Python file with a function of your own (--reward_file): docs/add_a_reward.md
    # Each term with a weight is normalised within its group before they are added, and the sum over the batch
    # (GDPO, arXiv 2601.05242), so that no term drowns the others.
    config.rewards.normalize_apart = False

    config.referring = ConfigDict()  # reward of that task: docs in dig_jax/tasks/referring/task.py
    config.referring.hit_weight = 0.5  # of a box that overlaps enough
    config.referring.iou_weight = 0.5
    config.referring.format_weight = 0.1
    config.referring.iou_threshold = 0.5  # a box is a hit from this IoU
    config.referring.bare = False  # True: the answer is the box alone, and in no list; for one image

    config.conversation = ConfigDict()  # that task: dig_jax/tasks/conversation/task.py
    # Rounds of a conversation are shown as long as all of them have no more characters, the first in any case
    # (its answer may be cut: sft.cut_answers). 0 = all rounds
    config.conversation.max_characters = 0
    # Which items of aligned records (data_gen.align), such as ("I-C", "C-I"); () = all. Other files have none
    config.conversation.kinds = ()
    # So many of those items, of one picture, are rounds of one conversation, which shows the picture once:
    # more answers in the same time. Needs sft.max_earlier_tokens. 0 = each item alone
    config.conversation.joined = 0

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 1e-6
    config.optimizer.schedule = "constant"  # after warm-up: "constant" | "linear" | "cosine" (both to 0)
    config.optimizer.warmup_updates = 0
    # The same as a share of all updates of the schedule, rounded up (0.03 in LLaVA's recipes); 0 = off
    config.optimizer.warmup_ratio = 0.0
    config.optimizer.restart = False  # True, in a stage: new moments, and a schedule that begins there
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.999
    config.optimizer.weight_decay = 1e-2
    config.optimizer.clip_norm = 1.0  # global gradient norm
    # Moments (and those bits of bfloat16 parameters) are kept in the memory of the hosts, and on the devices
    # only while parameters change.
    config.optimizer.offload = False
    config.optimizer.max_skipped_updates = 10  # non-finite updates in a row before the run stops

    config.mesh = ConfigDict()  # devices per axis; -1 takes what is left
    config.mesh.data = 1
    config.mesh.fsdp = -1
    # Experts of a mixture are split over these devices and stay there, and tokens travel to them. For the
    # rest of the model these are further devices of fsdp, where that is more than 1: docs/experts.md
    config.mesh.expert = 1
    config.mesh.tensor = 1

    config.distributed = ConfigDict()  # several processes (--distributed)
    config.distributed.silence_seconds = 60.0  # one not heard of for so long is lost: the others end

    config.eval = ConfigDict()
    config.eval.main = (
        "main"  # the entry of `evals` that chooses the best checkpoint and whose answers are shown
    )
    config.eval.every = 5  # steps; the first and the last step are always evaluated
    config.eval.num_pairs = 128  # 0 = the whole split
    config.eval.batch_prompts = 64
    # Completions per pair, drawn as the rollout draws them (rollout.temperature, top_p, top_k), always from
    # the same noise. Their metrics end in _sampled. 0 = greedy answers alone.
    config.eval.group_size = 8
    # Greedy answers as well: metrics "f1", "reward_greedy", ... Not for Thinking models, whose makers advise
    # against it: they repeat themselves without end.
    config.eval.greedy = False
    # Each evaluation again with the first image of every example that of another one (of the same size): what
    # a model earns that does not look, as metrics "NAME/blind/f1_sampled", ... Not of benchmarks.
    config.eval.blind = False
    config.eval.thinking_budget = 0  # tokens of thought after which it is closed; 0 = off. docs/thinking.md

    # Evaluations: name -> some of task, data, split, every, num_examples. With eval.main = "mixed", such as
    # {"mixed": {"data": "data/mixed"}, "phrases": {"task": "referring", "data": "data/mixed", "every": 20}}.
    # What is left out is as above (task, data.eval_split, eval.every, eval.num_pairs); metrics are
    # "mixed/f1_sampled", "phrases/hit_sampled", ... In place of a task an entry may name a benchmark, such as
    # {"pope": {"benchmark": "pope", "data": "DIR", "num_examples": 500}}: a sample of it by the seed, of its
    # files below DIR (docs/benchmarks.md), of all its splits unless one is named; metrics are "pope/score".
    config.evals = ConfigDict()

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 5  # steps
    config.checkpoint.keep = 3  # newest checkpoints kept, beside the one with the best evaluation
    # How many of the newest keep the optimizer's state (two thirds of a checkpoint), to go on from.
    # The others hold parameters, all that evaluation, export and a KL reference need. 0 = all keep it.
    config.checkpoint.resumable = 0
    config.checkpoint.grace_seconds = 300.0  # from a request to stop (SIGTERM, Ctrl-C) to the end, at most

    config.log = ConfigDict()
    config.log.every = 1  # steps between lines on the terminal; metrics.jsonl has every step
    config.log.samples = 4  # pictures with true and predicted boxes per evaluation
    config.log.tensorboard = True
    config.log.wandb_project = ""  # "" = off
    config.log.profile_steps = ()  # steps, from 1, to trace to workdir/profile; the first ones compile
    return config
