"""Traffic and collectives, read from compiled programs."""

from dig_jax.aot import hlo

# In the compiler's own words, cut down: a loop of 3 turns that gathers over 4 chips, a fusion that reads one
# of 3 layers, a decoding loop whose end depends on data, and values in on-chip memory (S(1)).
PROGRAM = """\
HloModule jit_step, is_scheduled=true

%slice_layer (p0: f32[3,64,8], p1: s32[]) -> f32[64,8] {
  %p0 = f32[3,64,8]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %cut = f32[1,64,8]{2,1,0} dynamic-slice(%p0, %p1, %zero, %zero), dynamic_slice_sizes={1,64,8}
  ROOT %whole = f32[64,8]{1,0} bitcast(%cut)
}

%layers_condition (c: (s32[], f32[16,8])) -> pred[] {
  %c = (s32[], f32[16,8]{1,0}) parameter(0)
  %count = s32[]{:S(6)} constant(3)
  %turn = s32[]{:S(6)} get-tuple-element(%c), index=0
  ROOT %less = pred[]{:S(6)} compare(%turn, %count), direction=LT
}

%layers_body (b: (s32[], f32[16,8])) -> (s32[], f32[16,8]) {
  %b = (s32[], f32[16,8]{1,0}) parameter(0)
  %shard = f32[16,8]{1,0:T(8,128)S(1)} get-tuple-element(%b), index=1
  %gathered = f32[64,8]{1,0:T(8,128)S(1)} all-gather(%shard), replica_groups=mesh['a'=1,'b'=4] {'b'}
  %index = s32[] get-tuple-element(%b), index=0
  ROOT %next = (s32[], f32[16,8]{1,0}) tuple(%index, %shard)
}

%until_done (d: (pred[], f32[3,64,8])) -> pred[] {
  %d = (pred[], f32[3,64,8]{2,1,0}) parameter(0)
  ROOT %going = pred[] get-tuple-element(%d), index=0
}

%decode (e: (pred[], f32[3,64,8])) -> (pred[], f32[3,64,8]) {
  %e = (pred[], f32[3,64,8]{2,1,0}) parameter(0)
  %weights = f32[3,64,8]{2,1,0} get-tuple-element(%e), index=1
  %number = s32[]{:T(128)S(6)} constant(1)
  %layer = f32[64,8]{1,0:T(8,128)S(1)} fusion(%weights, %number), kind=kLoop, calls=%slice_layer
  %flag = pred[] get-tuple-element(%e), index=0
  ROOT %again = (pred[], f32[3,64,8]{2,1,0}) tuple(%flag, %weights)
}

ENTRY %main (x: f32[16,8], w: f32[3,64,8]) -> f32[16,8] {
  %x = f32[16,8]{1,0} parameter(0)
  %w = f32[3,64,8]{2,1,0} parameter(1)
  %start = s32[] constant(0)
  %yes = pred[] constant(true)
  %carry = (s32[], f32[16,8]{1,0}) tuple(%start, %x)
  %scan = (s32[], f32[16,8]{1,0}) while(%carry), condition=%layers_condition, body=%layers_body
  %state = (pred[], f32[3,64,8]{2,1,0}) tuple(%yes, %w)
  %loop = (pred[], f32[3,64,8]{2,1,0}) while(%state), condition=%until_done, body=%decode
  %y = f32[16,8]{1,0} get-tuple-element(%scan), index=1
  ROOT %sum = f32[16,8]{1,0} all-reduce(%y), replica_groups={{0,1},{2,3}}, to_apply=%layers_condition
}
"""
SHARD, LAYER = 16 * 8 * 4, 64 * 8 * 4  # bytes


def test_collectives_count_once_per_turn_of_their_loop():
    traffic = hlo.read_traffic(PROGRAM)
    assert traffic.collectives == {
        "all-gather": 3 * 3 * SHARD,  # 3 turns, to 3 other chips
        "all-reduce": 2 * SHARD / 2,  # there and back, in groups of 2
    }


def test_a_fusion_that_slices_reads_the_slice_and_on_chip_memory_is_no_traffic():
    one_turn = hlo.read_traffic(PROGRAM, one_turn=True)
    assert one_turn.hbm == LAYER  # of the decoding loop: one layer in, the result stays on the chip
    assert one_turn.collectives == {}
    assert hlo.read_traffic(PROGRAM).hbm == LAYER + 2 * SHARD  # and the all-reduce: in and out


def test_rounds_of_split_experts_after_the_first_count_nothing():
    inner = "%loop = (pred[], f32[3,64,8]{2,1,0}) while(%state), condition=%until_done, body=%decode"
    assert inner in PROGRAM
    named = inner + ', metadata={op_name="jit(step)/layers/further_rounds/while"}'
    rounds = PROGRAM.replace(inner, named)
    assert hlo.read_traffic(rounds, one_turn=True).hbm == 0  # no other loop is open-ended
    assert hlo.read_traffic(rounds).hbm == 2 * SHARD  # the all-reduce


def test_a_kernel_that_reads_one_layer_of_a_stack_counts_that_layer():
    text = """\
ENTRY %main (x: f32[16,64], w: f32[3,64,8]) -> f32[16,8] {
  %x = f32[16,64]{1,0} parameter(0)
  %w = f32[3,64,8]{2,1,0} parameter(1)
  ROOT %y = f32[16,8]{1,0} custom-call(%x, %w), custom_call_target="tpu_custom_call"METADATA
}
"""
    known = ', metadata={op_name="jit(drain)/one_layer_of_3/gmm"}'
    assert hlo.read_traffic(text.replace("METADATA", "")).hbm == 16 * 64 * 4 + 3 * LAYER + SHARD
    assert hlo.read_traffic(text.replace("METADATA", known)).hbm == 16 * 64 * 4 + LAYER + SHARD


def test_the_kernel_that_reads_what_is_filled_counts_with_what_it_states():
    text = """\
ENTRY %main (q: f32[16,64], k: bf16[3,16,2048,64]) -> f32[16,64] {
  %q = f32[16,64]{1,0} parameter(0)
  %k = bf16[3,16,2048,64]{3,2,1,0} parameter(1)
  ROOT %y = f32[16,64]{1,0} custom-call(%q, %k), metadata={op_name="jit(drain)/ragged_decode/pallas_call"}, \
backend_config={"custom_call_config":{"cost_estimate":{"flops":"7","bytes_accessed":"12345"}}}
}
"""
    assert hlo.read_traffic(text).hbm == 12345
    assert hlo.read_traffic(text.replace("ragged_decode", "other")).hbm > 3 * 16 * 2048 * 64 * 2


def test_a_collective_that_several_fusions_carry_counts_once():
    gather = 'f32[64,8]{1,0} all-gather(%p), replica_groups=[1,4]<=[4], frontend_attributes={chain_id="1"}'
    text = f"""\
%begin (p: f32[16,8]) -> (f32[16,8], f32[64,8], s32[2]) {{
  %p = f32[16,8]{{1,0}} parameter(0)
  %g = {gather}
  ROOT %s = (f32[16,8], f32[64,8], s32[2]) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}}

%meanwhile (p: f32[16,8], q: f32[64,8], x: f32[5,8]) -> (f32[5,8], f32[16,8], f32[64,8], f32[64,8]) {{
  %p = f32[16,8]{{1,0}} parameter(0)
  %q = f32[64,8]{{1,0}} parameter(1)
  %x = f32[5,8]{{1,0}} parameter(2)
  %y = f32[5,8]{{1,0}} multiply(%x, %x)
  %g = {gather}
  ROOT %t = (f32[5,8], f32[16,8], f32[64,8], f32[64,8]) tuple(%y, %p, %q, %g)
}}

%end (p: f32[16,8], q: f32[64,8]) -> f32[64,8] {{
  %p = f32[16,8]{{1,0}} parameter(0)
  %q = f32[64,8]{{1,0}} parameter(1)
  %g = {gather}
  ROOT %d = f32[64,8]{{1,0}} custom-call(%p, %q, %g), custom_call_target="AsyncCollectiveDone"
}}

ENTRY %main (a: f32[16,8], x: f32[5,8]) -> f32[64,8] {{
  %a = f32[16,8]{{1,0}} parameter(0)
  %x = f32[5,8]{{1,0}} parameter(1)
  %s = (f32[16,8]{{1,0}}, f32[64,8]{{1,0}}, s32[2]{{0}}) fusion(%a), calls=%begin
  %p = f32[16,8]{{1,0}} get-tuple-element(%s), index=0
  %q = f32[64,8]{{1,0}} get-tuple-element(%s), index=1
  %m = (f32[5,8], f32[16,8], f32[64,8], f32[64,8]) fusion(%p, %q, %x), calls=%meanwhile
  ROOT %d = f32[64,8]{{1,0}} fusion(%p, %q), calls=%end
}}
"""
    traffic = hlo.read_traffic(text)
    assert traffic.collectives == {"all-gather": 3 * SHARD}
    begin = SHARD + (SHARD + 4 * SHARD + 8)  # in; and out, with the shard that is handed on, and two flags
    assert traffic.hbm == begin + 2 * 5 * 8 * 4


def test_an_update_in_place_moves_what_is_updated():
    text = """\
ENTRY %main (c: f32[100,8], n: f32[1,8], i: s32[]) -> f32[100,8] {
  %c = f32[100,8]{1,0} parameter(0)
  %n = f32[1,8]{1,0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %u = f32[100,8]{1,0} dynamic-update-slice(%c, %n, %i, %i)
}
"""
    assert hlo.read_traffic(text).hbm == 2 * 8 * 4
