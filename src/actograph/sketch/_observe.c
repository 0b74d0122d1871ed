/* Measure one CPU tensor in one pass: the row, the histogram and the units that fired.
 *
 * No idea of torch: it gets an address, a type, sizes and strides. Python side: native.py. What a row is: layout/row.py
 * and layout/bins.py, whose numbers are repeated below and compared when the module is imported (native.py).
 *
 * How it goes. The tensor is cut into chunks at fixed places, a chunk into blocks that stay in the L1 cache. A block goes
 * once through a vector kernel (AVX-512 or AVX2, chosen at import) that adds up lanes in float32 about a shift, and at the
 * same time, two vectors behind, counts keys read off the floats' bits into eight small tables (one table would stall on
 * equal neighbours). Blocks merge into a chunk and chunks into the row in float64 (Chan et al. 1979), always in the same
 * order, so the result does not depend on the number of threads. Where float32 lanes are not good enough (NaN, infinity,
 * overflow, a shift far off) the block is measured again by `exact_moments`, in float64 and two passes. That path serves
 * float64 tensors, tails and other processors as well.
 *
 * Never compile with -ffast-math: it deletes the NaN tests.
 *
 * The file includes itself once per vector kernel; that part, at the end, is what KERNEL selects.
 */
#ifndef KERNEL

#define PY_SSIZE_T_CLEAN
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#include <Python.h>

#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define HAVE_X86 1
#include <immintrin.h>
#else
#define HAVE_X86 0
#endif

#if defined(__unix__) || defined(__APPLE__)
#define HAVE_WORKER 1
#include <pthread.h>
#include <signal.h>
#else
#define HAVE_WORKER 0
#endif

#if defined(__GNUC__) || defined(__clang__)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define ALWAYS_INLINE inline
#endif

/* ---- what layout/row.py and layout/bins.py say ---------------------------------------------------------------- */

enum { NEG_COUNT, NEG_MEAN, NEG_M2, POS_COUNT, POS_MEAN, POS_M2, ZEROS, NEAR_ZERO, NANS, INFS, FLAT, MIN, MAX,
       FIRST_NON_FINITE, NEAR_ZERO_NEG, INF_NEG, NUM_FIELDS };
#define NUM_BINS 349
#define MAGNITUDES 174 /* bins of one sign, underflow (0) and overflow (173) among them */
#define ZERO_BIN 174
#define KEY_SHIFT 21   /* float32 bits >> 21: quarter octaves */
#define KEY_LOW 403    /* the key of the underflow bin: everything below 2^-26 is raised to it */
#define KEY_HIGH 576   /* the key of the overflow bin: everything from 2^17 is lowered to it */
#define NEAR_ZERO_LIMIT 0.05

/* ---- sizes, all measured (benchmarks/LOG.md) ------------------------------------------------------------------- */

#define BLOCK 2048            /* elements: 8 KiB of float32, a quarter of the smallest L1 cache in use */
#define MIN_CHUNK (8 * BLOCK) /* elements: what one thread takes at a time */
#define MAX_CHUNKS 64         /* their partial results live on the stack */
#define PARALLEL_FROM 262144  /* elements: below it waking the worker costs about what it brings, more on busy cores */
#define RELEASE_FROM 4096     /* elements: below it the GIL is kept; the work takes about a microsecond */
#define MAX_DIMS 16
#define STRIP 16      /* units looked at together where they lie side by side: a cache line of float32 */
#define STRIP_ROWS 64
#define LANES 8               /* doubles the compiler may put into vectors */
#define LAG 32                /* keys are counted so many elements after they were stored */

/* Eight tables of one counter per key: keys of x >= 0 (and NaN) first, those of x < 0 from NEG_TABLE, one bin for keys
 * that are none. The odd number of cache lines keeps the tables off each other's cache sets: 2,048 keys a table in
 * tables of 8 KiB ran at 1 GB/s, these at 12. */
#define NUM_TABLES 8
#define NEG_TABLE 176
#define NO_KEY (KEY_LOW + 351)
#define TABLE_STRIDE 368
#define FOLD_FROM (1ll << 31) /* elements: tables are emptied before a counter can overflow */
#define MAX_ELEMENTS (FOLD_FROM * MAX_CHUNKS)

typedef struct {
    double num, mean, m2; /* m2: sum of squared deviations from the mean */
} Moments;

typedef struct {
    Moments neg, pos;
    int64_t near_zero, near_zero_neg, flat, nans, pos_infs, neg_infs;
    double min, max; /* of finite values */
} Part;

typedef struct {
    int intervals;         /* 0, 1 or 2; closed; infinite ends are replaced by the largest finite number */
    float low[2], high[2]; /* rounded inwards, so that comparing a float32 equals comparing in float64 */
    double low64[2], high64[2];
} Region;

/* Where a ReLU that follows is zero. It maps -inf to 0, so -inf lies in it, as in no region of a layer's own output. */
#define BELOW_ZERO {1, {-INFINITY, INFINITY}, {0, -INFINITY}, {-INFINITY, INFINITY}, {0, -INFINITY}}
#define NOWHERE {0, {INFINITY, INFINITY}, {-INFINITY, -INFINITY}, {INFINITY, INFINITY}, {-INFINITY, -INFINITY}}

/* What a vector kernel finds in a block: sums of d = x - shift and of d * d for x < 0 and x > 0 apart. */
typedef struct {
    double neg_sum, neg_squares, pos_sum, pos_squares;
    int64_t neg, pos, near_zero, near_zero_neg, flat;
    double min, max;
} Sums;

typedef struct {
    const char *name;
    int width; /* floats in a vector; 0: no kernel, all goes the exact way */
    void (*sums[3])(const float *x, int n, const Region *region, const float shift[2], uint32_t *tables, Sums *out);
    int64_t (*count_flat)(const float *x, int64_t n, const Region *region);
    bool (*all_flat)(const float *x, int64_t n, const Region *region);
    uint32_t (*still_flat)(const float *x, const int64_t *rows, int num, const Region *region, uint32_t silent);
    void (*from_half)(const uint16_t *x, int n, float *out);
} Kernel;

typedef struct {
    double *row;
    int64_t *hist;
    uint8_t *fired;     /* (units,): units whose values left the region; NULL: not recorded */
    uint8_t *rectified; /* (units,): units of which a ReLU that follows would fire; NULL: nobody asks */
    int64_t units;
    int64_t channel_axis;
    bool flat_on_output;
    Region region;
} Target;

typedef enum { FLOAT32, FLOAT16, BFLOAT16, FLOAT64, NUM_TYPES } Type;
static const int ITEM_BYTES[NUM_TYPES] = {4, 2, 2, 8};

static float largest_float_below(double limit) {
    float f = (float)limit;
    return (double)f > limit ? nextafterf(f, -INFINITY) : f;
}

static float smallest_float_above(double limit) {
    float f = (float)limit;
    return (double)f < limit ? nextafterf(f, INFINITY) : f;
}

static ALWAYS_INLINE bool in_region(float v, const Region *r) {
    return ((v >= r->low[0]) & (v <= r->high[0])) | ((v >= r->low[1]) & (v <= r->high[1]));
}

static ALWAYS_INLINE bool in_region64(double v, const Region *r) {
    return ((v >= r->low64[0]) & (v <= r->high64[0])) | ((v >= r->low64[1]) & (v <= r->high64[1]));
}

/* ---- converting ------------------------------------------------------------------------------------------------ */

static void from_bfloat(const uint16_t *x, int n, float *out) {
    for (int i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)x[i] << 16;
        memcpy(out + i, &bits, 4);
    }
}

static void from_half(const uint16_t *x, int n, float *out) {
    const uint32_t exponents = 0x7c00u << 13, tiny = 113u << 23;
    for (int i = 0; i < n; i++) {
        uint32_t bits = (x[i] & 0x7fffu) << 13, exponent = bits & exponents;
        bits += (127u - 15u) << 23;
        if (exponent == exponents) {
            bits += (128u - 16u) << 23; /* infinity, NaN */
        } else if (exponent == 0) { /* zero, denormal: let a subtraction normalise it */
            float f, base;
            bits += 1u << 23;
            memcpy(&f, &bits, 4);
            memcpy(&base, &tiny, 4);
            f -= base;
            memcpy(&bits, &f, 4);
        }
        bits |= (x[i] & 0x8000u) << 16;
        memcpy(out + i, &bits, 4);
    }
}

/* ---- moments --------------------------------------------------------------------------------------------------- */

static void merge_moments(Moments *a, Moments b) {
    if (b.num == 0)
        return;
    if (a->num == 0) {
        *a = b;
        return;
    }
    double num = a->num + b.num, share = b.num / num, delta = b.mean - a->mean;
    a->mean += delta * share;
    a->m2 += b.m2 + delta * delta * a->num * share;
    a->num = num;
}

static void clear_part(Part *part) {
    memset(part, 0, sizeof *part);
    part->min = INFINITY;
    part->max = -INFINITY;
}

static void merge_parts(Part *a, const Part *b) {
    merge_moments(&a->neg, b->neg);
    merge_moments(&a->pos, b->pos);
    a->near_zero += b->near_zero;
    a->near_zero_neg += b->near_zero_neg;
    a->flat += b->flat;
    a->nans += b->nans;
    a->pos_infs += b->pos_infs;
    a->neg_infs += b->neg_infs;
    a->min = fmin(a->min, b->min);
    a->max = fmax(a->max, b->max);
}

/* Return the moments of finite values, in two passes. Lanes let the compiler use vectors. */
static Moments two_pass(const double *x, int n) {
    double sum[LANES] = {0}, rest[LANES] = {0}, squares[LANES] = {0};
    int whole = n - n % LANES;
    for (int i = 0; i < whole; i += LANES)
        for (int j = 0; j < LANES; j++)
            sum[j] += x[i + j];
    for (int i = whole; i < n; i++)
        sum[i - whole] += x[i];
    for (int j = 1; j < LANES; j++)
        sum[0] += sum[j];
    double mean = n ? sum[0] / n : 0.0;
    if (fabs(mean) > DBL_MAX) { /* the sum overflowed; the mean does not */
        mean = 0.0;
        for (int i = 0; i < n; i++)
            mean += x[i] / n;
    }
    for (int i = 0; i < whole; i += LANES)
        for (int j = 0; j < LANES; j++) {
            double d = x[i + j] - mean;
            rest[j] += d;
            squares[j] += d * d;
        }
    for (int i = whole; i < n; i++) {
        rest[i - whole] += x[i] - mean;
        squares[i - whole] += (x[i] - mean) * (x[i] - mean);
    }
    for (int j = 1; j < LANES; j++) {
        rest[0] += rest[j];
        squares[0] += squares[j];
    }
    Moments m = {n, mean, squares[0]};
    if (n && squares[0] <= DBL_MAX) { /* take the rounding of the mean out again */
        m.mean += rest[0] / n;
        m.m2 = fmax(squares[0] - rest[0] * rest[0] / n, 0.0);
    }
    return m;
}

static double lowest(const double *x, int n, double low) {
    double lows[4] = {low, low, low, low}; /* four at a time: one would wait for the one before */
    int i = 0;
    for (; i + 4 <= n; i += 4)
        for (int j = 0; j < 4; j++)
            lows[j] = x[i + j] < lows[j] ? x[i + j] : lows[j];
    for (; i < n; i++)
        lows[0] = x[i] < lows[0] ? x[i] : lows[0];
    return fmin(fmin(lows[0], lows[1]), fmin(lows[2], lows[3]));
}

static double highest(const double *x, int n, double high) {
    double highs[4] = {high, high, high, high};
    int i = 0;
    for (; i + 4 <= n; i += 4)
        for (int j = 0; j < 4; j++)
            highs[j] = x[i + j] > highs[j] ? x[i + j] : highs[j];
    for (; i < n; i++)
        highs[0] = x[i] > highs[0] ? x[i] : highs[0];
    return fmax(fmax(highs[0], highs[1]), fmax(highs[2], highs[3]));
}

/* Copy the finite values of at most BLOCK and count the others. */
static int keep_finite(const double *x, int n, double *finite, Part *part) {
    int kept = 0;
    for (int i = 0; i < n; i++) {
        finite[kept] = x[i];
        kept += fabs(x[i]) <= DBL_MAX;
        part->nans += x[i] != x[i];
        part->pos_infs += x[i] > DBL_MAX;
        part->neg_infs += x[i] < -DBL_MAX;
    }
    return kept;
}

/* Add moments, extremes and non-finite counts of a block of at most BLOCK values, in float64. */
static void exact_moments(const double *x, int n, Part *part) {
    double finite[BLOCK + 1], neg[BLOCK + 1], pos[BLOCK + 1];
    int num_finite = 0, negs = 0, poss = 0;
    for (int i = 0; i < n; i++)
        num_finite += fabs(x[i]) <= DBL_MAX;
    if (num_finite < n) {
        n = keep_finite(x, n, finite, part);
        x = finite;
    }
    for (int i = 0; i < n; i++) { /* sort by sign, without a branch */
        neg[negs] = pos[poss] = x[i];
        negs += x[i] < 0;
        poss += x[i] > 0;
    }
    if (negs + poss < n) {
        part->min = fmin(part->min, 0.0);
        part->max = fmax(part->max, 0.0);
    }
    part->min = negs ? lowest(neg, negs, part->min) : lowest(pos, poss, part->min);
    part->max = poss ? highest(pos, poss, part->max) : highest(neg, negs, part->max);
    merge_moments(&part->neg, two_pass(neg, negs));
    merge_moments(&part->pos, two_pass(pos, poss));
}

/* Add everything else: near-zero and flat counts, and the keys. */
static void exact_counts(const double *x, int n, const Region *region, uint32_t *tables, Part *part) {
    for (int i = 0; i < n; i++) {
        float magnitude = (float)fabs(x[i]);
        uint32_t bits;
        memcpy(&bits, &magnitude, 4);
        uint32_t key = bits >> KEY_SHIFT;
        key = key < KEY_LOW ? KEY_LOW : key;
        key = key > KEY_HIGH ? KEY_HIGH : key;
        key += -(uint32_t)(x[i] < 0) & NEG_TABLE; /* no branch: it would be guessed wrong every other time */
        tables[TABLE_STRIDE * (i % NUM_TABLES) + key - KEY_LOW]++;
    }
    int near_zero = 0, near_zero_neg = 0, flat = 0;
    for (int i = 0; i < n; i++) {
        near_zero += fabs(x[i]) <= NEAR_ZERO_LIMIT;
        near_zero_neg += (x[i] < 0) & (x[i] >= -NEAR_ZERO_LIMIT);
    }
    for (int i = 0; region->intervals && i < n; i++)
        flat += in_region64(x[i], region);
    part->near_zero += near_zero;
    part->near_zero_neg += near_zero_neg;
    part->flat += flat;
}

static void widen(const float *x, int n, double *out) {
    for (int i = 0; i < n; i++)
        out[i] = x[i];
}

/* ---- the kernels ----------------------------------------------------------------------------------------------- */

static int64_t count_flat_plain(const float *x, int64_t n, const Region *region) {
    int64_t flat = 0;
    for (int64_t i = 0; i < n; i++)
        flat += in_region(x[i], region);
    return flat;
}

static bool all_flat_plain(const float *x, int64_t n, const Region *region) {
    for (int64_t i = 0; i < n; i++)
        if (!in_region(x[i], region))
            return false;
    return true;
}

/* Of STRIP units that lie side by side, return those of `silent` (a bit each) that are flat in all rows. */
static uint32_t still_flat_plain(const float *x, const int64_t *rows, int num, const Region *region, uint32_t silent) {
    for (int r = 0; r < num && silent; r++) {
        uint32_t flat = 0;
        for (int j = 0; j < STRIP; j++)
            flat |= (uint32_t)in_region(x[rows[r] + j], region) << j;
        silent &= flat;
    }
    return silent;
}

#if HAVE_X86
#define KERNEL 2
#include "_observe.c"
#undef KERNEL
#define KERNEL 512
#include "_observe.c"
#undef KERNEL
#endif

static const Kernel KERNELS[] = {
#if HAVE_X86
    {"avx512", 16, {sums0_avx512, sums1_avx512, sums2_avx512}, count_flat_avx512, all_flat_avx512, still_flat_avx512,
     from_half_avx512},
    {"avx2", 8, {sums0_avx2, sums1_avx2, sums2_avx2}, count_flat_avx2, all_flat_avx2, still_flat_avx2,
     from_half_avx2},
#endif
    {"plain", 0, {NULL, NULL, NULL}, count_flat_plain, all_flat_plain, still_flat_plain, from_half},
};
#define NUM_KERNELS ((int)(sizeof KERNELS / sizeof KERNELS[0]))

static bool is_supported(const Kernel *kernel) {
#if HAVE_X86
    __builtin_cpu_init();
    if (kernel->width == 16)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (kernel->width == 8) /* every processor with AVX2 and FMA has F16C */
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return kernel->width == 0;
}

static const Kernel *the_kernel = &KERNELS[NUM_KERNELS - 1]; /* set once, at import; `use` is for tests */

/* ---- layouts: which elements, in which order ------------------------------------------------------------------- */

typedef struct {
    int dims;                                  /* 0: one element */
    int64_t size[MAX_DIMS], stride[MAX_DIMS];  /* elements; from the largest stride to the smallest */
} Layout;

/* Order does not matter to counts and moments: sort by stride, join what lies on end. `leave_out` may name an axis. */
static Layout make_layout(int dims, const int64_t *size, const int64_t *stride, int leave_out) {
    Layout out = {0};
    for (int d = 0; d < dims; d++) {
        if (size[d] == 1 || d == leave_out)
            continue;
        int at = out.dims++;
        for (; at > 0 && out.stride[at - 1] < stride[d]; at--) {
            out.size[at] = out.size[at - 1];
            out.stride[at] = out.stride[at - 1];
        }
        out.size[at] = size[d];
        out.stride[at] = stride[d];
    }
    int last = 0;
    for (int d = 1; d < out.dims; d++) {
        if (out.stride[last] == out.size[d] * out.stride[d]) {
            out.size[last] *= out.size[d];
        } else {
            last++;
            out.size[last] = out.size[d];
        }
        out.stride[last] = out.stride[d];
    }
    out.dims = out.dims ? last + 1 : 0;
    return out;
}

static bool is_dense(const Layout *layout) {
    return layout->dims == 0 || (layout->dims == 1 && layout->stride[0] == 1);
}

static int64_t seek(const Layout *layout, int dims, int64_t index, int64_t *at) {
    int64_t offset = 0;
    for (int d = dims - 1; d >= 0; d--) {
        at[d] = index % layout->size[d];
        index /= layout->size[d];
        offset += at[d] * layout->stride[d];
    }
    return offset;
}

static int64_t advance(const Layout *layout, int dims, int64_t *at) {
    int64_t offset = 0;
    for (int d = dims - 1; d >= 0; d--) {
        offset += layout->stride[d];
        if (++at[d] < layout->size[d])
            return offset;
        offset -= layout->size[d] * layout->stride[d];
        at[d] = 0;
    }
    return offset;
}

/* Copy n elements, from the index-th on, side by side. */
static void gather(const char *base, int bytes, const Layout *layout, int64_t index, int n, char *out) {
    int64_t at[MAX_DIMS];
    int inner = layout->dims - 1;
    int64_t offset = seek(layout, layout->dims, index, at), step = layout->stride[inner];
    offset -= at[inner] * step;
    while (n > 0) {
        int64_t rest = layout->size[inner] - at[inner];
        int take = rest < n ? (int)rest : n;
        const char *from = base + (offset + at[inner] * step) * bytes;
        if (step == 1)
            memcpy(out, from, (size_t)take * bytes);
        else if (bytes == 2)
            for (int i = 0; i < take; i++)
                ((uint16_t *)out)[i] = ((const uint16_t *)from)[i * step];
        else if (bytes == 4)
            for (int i = 0; i < take; i++)
                ((uint32_t *)out)[i] = ((const uint32_t *)from)[i * step];
        else
            for (int i = 0; i < take; i++)
                ((uint64_t *)out)[i] = ((const uint64_t *)from)[i * step];
        out += (size_t)take * bytes;
        n -= take;
        at[inner] = 0;
        offset += advance(layout, inner, at);
    }
}

typedef struct {
    const char *base;
    Type type;
    Layout layout;
    int64_t n;
} Source;

typedef struct {
    _Alignas(64) char raw[BLOCK * 8];
    _Alignas(64) float single[BLOCK];
} Scratch;

/* Return n elements as they are stored, where they lie or copied together. */
static const char *raw_block(const Source *s, int64_t index, int n, Scratch *scratch) {
    int bytes = ITEM_BYTES[s->type];
    if (is_dense(&s->layout))
        return s->base + index * bytes;
    gather(s->base, bytes, &s->layout, index, n, scratch->raw);
    return scratch->raw;
}

/* Return n elements as float32; not for float64. */
static const float *float_block(const Source *s, int64_t index, int n, Scratch *scratch) {
    const char *raw = raw_block(s, index, n, scratch);
    if (s->type == FLOAT32)
        return (const float *)raw;
    if (s->type == FLOAT16)
        the_kernel->from_half((const uint16_t *)raw, n, scratch->single);
    else
        from_bfloat((const uint16_t *)raw, n, scratch->single);
    return scratch->single;
}

/* ---- one chunk ------------------------------------------------------------------------------------------------- */

typedef struct {
    Source source;
    Region region;
    int64_t chunk;
    int chunks;
    atomic_int next; /* the chunk to take next */
    Part *parts;     /* (chunks,) */
} Job;

/* Take the mean of each sign among a few values as the first shift: any value of about that size will do. */
static void guess_shift(const float *x, int n, float shift[2]) {
    float sum[2] = {0, 0}, num[2] = {0, 0};
    for (int i = 0; i < n; i++) {
        float pos = x[i] > 0 && x[i] <= FLT_MAX, neg = x[i] < 0 && x[i] >= -FLT_MAX;
        sum[0] += neg > 0 ? x[i] : 0.0f;
        sum[1] += pos > 0 ? x[i] : 0.0f;
        num[0] += neg;
        num[1] += pos;
    }
    for (int i = 0; i < 2; i++) {
        shift[i] = num[i] > 0 ? sum[i] / num[i] : 0.0f;
        if (!(fabsf(shift[i]) <= FLT_MAX))
            shift[i] = 0.0f;
    }
}

#define SMALL_SHIFT 1e-10f   /* about a larger shift no deviation but 0 is so small that its square underflows */
#define SMALL_SQUARE 1e-30   /* mean square below which some squares may have underflowed (float32 ends at 1e-38) */
#define MAX_CANCELLATION 8.0 /* the shift may be this much farther off than the spread: costs 3 of 24 bits */

/* Join one sign of a block; false where the float32 sums are not good enough. */
static bool join_sums(Moments *into, double num, double sum, double squares, float shift) {
    if (num == 0)
        return true;
    if (!(squares <= FLT_MAX) || (fabsf(shift) < SMALL_SHIFT && squares < SMALL_SQUARE * num))
        return false;
    double off = sum * sum / num;
    Moments block = {num, shift + sum / num, fmax(squares - off, 0.0)};
    merge_moments(into, block);
    return off <= MAX_CANCELLATION * into->m2;
}

/* Add a block of whole vectors and choose the next shift. */
static void add_vectors(const float *x, int n, const Region *region, float shift[2], uint32_t *tables, Part *part) {
    Sums sums;
    the_kernel->sums[region->intervals](x, n, region, shift, tables, &sums);
    part->near_zero += sums.near_zero;
    part->near_zero_neg += sums.near_zero_neg;
    part->flat += sums.flat;
    Moments neg = part->neg, pos = part->pos;
    if (join_sums(&neg, (double)sums.neg, sums.neg_sum, sums.neg_squares, shift[0]) &&
        join_sums(&pos, (double)sums.pos, sums.pos_sum, sums.pos_squares, shift[1])) {
        part->neg = neg;
        part->pos = pos;
        part->min = fmin(part->min, sums.min);
        part->max = fmax(part->max, sums.max);
        if (sums.neg)
            shift[0] += (float)(sums.neg_sum / (double)sums.neg);
        if (sums.pos)
            shift[1] += (float)(sums.pos_sum / (double)sums.pos);
        return;
    }
    double wide[BLOCK];
    Part again;
    clear_part(&again);
    widen(x, n, wide);
    exact_moments(wide, n, &again);
    merge_parts(part, &again);
    /* the mean of a float32 block is a float32 number in range */
    if (again.neg.num > 0)
        shift[0] = (float)again.neg.mean;
    if (again.pos.num > 0)
        shift[1] = (float)again.pos.mean;
}

static void add_exactly(const double *x, int n, const Region *region, uint32_t *tables, Part *part) {
    Part block;
    clear_part(&block);
    exact_moments(x, n, &block);
    exact_counts(x, n, region, tables, &block);
    merge_parts(part, &block);
}

static void add_floats(const float *x, int n, const Region *region, float shift[2], uint32_t *tables, Part *part) {
    int vectors = the_kernel->width ? n - n % the_kernel->width : 0;
    if (vectors)
        add_vectors(x, vectors, region, shift, tables, part);
    if (n > vectors) {
        double wide[BLOCK];
        widen(x + vectors, n - vectors, wide);
        add_exactly(wide, n - vectors, region, tables, part);
    }
}

static void add_chunk(const Job *job, int chunk, uint32_t *tables, Part *part) {
    const Source *s = &job->source;
    int64_t from = chunk * job->chunk, to = from + job->chunk < s->n ? from + job->chunk : s->n;
    float shift[2] = {0, 0};
    Scratch scratch;
    for (int64_t i = from; i < to; i += BLOCK) {
        int n = to - i < BLOCK ? (int)(to - i) : BLOCK;
        if (s->type == FLOAT64) {
            add_exactly((const double *)raw_block(s, i, n, &scratch), n, &job->region, tables, part);
            continue;
        }
        const float *x = float_block(s, i, n, &scratch);
        if (i == from)
            guess_shift(x, n < 16 ? n : 16, shift);
        add_floats(x, n, &job->region, shift, tables, part);
    }
}

/* ---- all chunks, on one thread or two -------------------------------------------------------------------------- */

static void fold_tables(uint32_t *tables, int64_t *hist) {
    uint32_t total[TABLE_STRIDE];
    memcpy(total, tables, sizeof total);
    for (int t = 1; t < NUM_TABLES; t++)
        for (int i = 0; i < TABLE_STRIDE; i++)
            total[i] += tables[TABLE_STRIDE * t + i];
    for (int i = 0; i < MAGNITUDES; i++) {
        hist[ZERO_BIN + 1 + i] += total[i];
        hist[ZERO_BIN - 1 - i] += total[NEG_TABLE + i];
    }
}

/* Take chunks until none is left. Both threads do this; the histogram (NUM_BINS,) is the thread's own. */
static void work(Job *job, int64_t *hist) {
#if HAVE_X86
    unsigned int mode = _mm_getcsr(); /* torch.set_flush_denormal makes denormals compare equal to zero: not here */
    _mm_setcsr(0x1f80);
#endif
    _Alignas(64) uint32_t tables[NUM_TABLES * TABLE_STRIDE] = {0};
    int64_t counted = 0;
    for (int c = atomic_fetch_add(&job->next, 1); c < job->chunks; c = atomic_fetch_add(&job->next, 1)) {
        if (counted + job->chunk > FOLD_FROM) {
            fold_tables(tables, hist);
            memset(tables, 0, sizeof tables);
            counted = 0;
        }
        counted += job->chunk;
        clear_part(&job->parts[c]);
        add_chunk(job, c, tables, &job->parts[c]);
    }
    if (counted)
        fold_tables(tables, hist);
#if HAVE_X86
    _mm_setcsr(mode);
#endif
}

#if HAVE_WORKER
/* The second thread: made when first needed, made anew after fork, asleep between jobs. It never touches Python. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
static bool has_worker, is_lent, is_working;
static Job *offered;
static int64_t worker_hist[NUM_BINS];

static void forget_worker(void) { /* in the child of a fork, where only the forking thread lives on */
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&wake, NULL);
    pthread_cond_init(&done, NULL);
    has_worker = is_lent = is_working = false;
    offered = NULL;
}

static void *worker_main(void *unused) {
    (void)unused;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (!offered)
            pthread_cond_wait(&wake, &lock);
        Job *job = offered;
        offered = NULL;
        is_working = true;
        memset(worker_hist, 0, sizeof worker_hist);
        pthread_mutex_unlock(&lock);
        work(job, worker_hist);
        pthread_mutex_lock(&lock);
        is_working = false;
        pthread_cond_signal(&done);
    }
    return NULL;
}

static bool start_worker(void) { /* under the lock */
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all); /* signals are for Python's own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool ok = pthread_create(&thread, NULL, worker_main, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (ok)
        pthread_detach(thread);
    return ok;
}

/* Do the job with the worker's help, if it is free; whether it was. */
static bool work_with_help(Job *job, int64_t *hist) {
    pthread_mutex_lock(&lock);
    bool mine = !is_lent && (has_worker || (has_worker = start_worker()));
    if (mine) {
        is_lent = true;
        offered = job;
        pthread_cond_signal(&wake);
    }
    pthread_mutex_unlock(&lock);
    if (!mine)
        return false;
    work(job, hist);
    pthread_mutex_lock(&lock);
    if (offered == job) { /* it came too late */
        offered = NULL;
    } else {
        while (is_working)
            pthread_cond_wait(&done, &lock);
        for (int i = 0; i < NUM_BINS; i++)
            hist[i] += worker_hist[i];
    }
    is_lent = false;
    pthread_mutex_unlock(&lock);
    return true;
}
#else
static bool work_with_help(Job *job, int64_t *hist) {
    (void)job, (void)hist;
    return false;
}
#endif

/* ---- the units that fired -------------------------------------------------------------------------------------- */

static bool element_is_flat(const char *at, Type type, const Region *region) {
    float v;
    if (type == FLOAT64)
        return in_region64(*(const double *)at, region);
    if (type == FLOAT32)
        v = *(const float *)at;
    else if (type == FLOAT16)
        from_half((const uint16_t *)at, 1, &v);
    else
        from_bfloat((const uint16_t *)at, 1, &v);
    return in_region(v, region);
}

/* Tell whether n elements that lie side by side are all in the region. */
static bool run_is_flat(const char *at, Type type, int64_t n, const Region *region) {
    if (type == FLOAT32)
        return the_kernel->all_flat((const float *)at, n, region);
    if (type == FLOAT64) {
        for (int64_t i = 0; i < n; i++)
            if (!in_region64(((const double *)at)[i], region))
                return false;
        return true;
    }
    float piece[64]; /* short: most units that fire do so at once */
    for (int64_t i = 0; i < n; i += 64) {
        int m = n - i < 64 ? (int)(n - i) : 64;
        const uint16_t *x = (const uint16_t *)at + i;
        if (type == FLOAT16)
            the_kernel->from_half(x, m, piece);
        else
            from_bfloat(x, m, piece);
        if (!the_kernel->all_flat(piece, m, region))
            return false;
    }
    return true;
}

static uint32_t strip_still_flat(const Source *s, int64_t first, const int64_t *rows, int num, int64_t units,
                                 const Region *region, uint32_t silent) {
    const char *base = s->base + first * ITEM_BYTES[s->type];
    if (s->type == FLOAT32 && units == STRIP)
        return the_kernel->still_flat((const float *)base, rows, num, region, silent);
    float piece[STRIP] = {0};
    const int64_t here = 0;
    for (int r = 0; r < num && silent; r++) {
        const char *x = base + rows[r] * ITEM_BYTES[s->type];
        if (s->type == FLOAT32)
            memcpy(piece, x, (size_t)units * sizeof *piece);
        else if (s->type == FLOAT16)
            the_kernel->from_half((const uint16_t *)x, (int)units, piece);
        else
            from_bfloat((const uint16_t *)x, (int)units, piece);
        silent = the_kernel->still_flat(piece, &here, 1, region, silent);
    }
    return silent;
}

/* Units lie side by side (last axis, channels last): look at strips of them, down the rows. */
static void mark_fired_in_strips(const Source *s, const Layout *rest, const Region *region, uint8_t *fired,
                                 int64_t units) {
    int64_t strips = (units + STRIP - 1) / STRIP, positions = s->n / units, at[MAX_DIMS] = {0}, offset = 0, left = 0;
    int64_t width = units < STRIP ? units : STRIP, rows[STRIP_ROWS];
    uint16_t *silent = calloc((size_t)strips, sizeof *silent);
    if (!silent)
        return; /* out of memory: the next step will tell */
    for (int64_t k = 0; k < strips; k++) {
        int64_t first = k * STRIP + width > units ? units - width : k * STRIP; /* the last may overlap */
        for (int j = 0; j < width; j++)
            silent[k] |= (uint16_t)(!fired[first + j] << j);
        left += silent[k] != 0;
    }
    for (int64_t p = 0; p < positions && left; p += STRIP_ROWS) {
        int num = positions - p < STRIP_ROWS ? (int)(positions - p) : STRIP_ROWS;
        for (int r = 0; r < num; r++) {
            rows[r] = offset;
            offset += advance(rest, rest->dims, at);
        }
        for (int64_t k = 0; k < strips; k++) {
            if (!silent[k])
                continue;
            int64_t first = k * STRIP + width > units ? units - width : k * STRIP;
            uint32_t still = strip_still_flat(s, first, rows, num, width, region, silent[k]);
            for (int j = 0; j < width; j++)
                fired[first + j] |= (silent[k] & ~still) >> j & 1;
            silent[k] = (uint16_t)still;
            left -= still == 0;
        }
    }
    free(silent);
}

/* Look only at units that have not fired yet: a healthy layer is done after a few elements of each. */
static void mark_fired(const Source *s, const Layout *rest, int64_t channel_stride, const Region *region,
                       uint8_t *fired, int64_t units) {
    if (channel_stride == 1 && units > 1 && s->type != FLOAT64) {
        mark_fired_in_strips(s, rest, region, fired, units);
        return;
    }
    int64_t *silent = malloc((size_t)units * sizeof *silent), left = 0, at[MAX_DIMS] = {0}, offset = 0;
    if (!silent)
        return; /* out of memory: the next step will tell */
    for (int64_t c = 0; c < units; c++)
        if (!fired[c])
            silent[left++] = c;
    int outer = rest->dims, bytes = ITEM_BYTES[s->type];
    int64_t run = 1, positions = 1;
    if (outer && rest->stride[outer - 1] == 1)
        run = rest->size[--outer]; /* a unit's values lie side by side */
    for (int d = 0; d < outer; d++)
        positions *= rest->size[d];
    for (int64_t p = 0; p < positions && left; p++) {
        int64_t kept = 0;
        for (int64_t k = 0; k < left; k++) {
            int64_t c = silent[k];
            const char *from = s->base + (offset + c * channel_stride) * bytes;
            bool flat = run > 1 ? run_is_flat(from, s->type, run, region) : element_is_flat(from, s->type, region);
            fired[c] |= !flat;
            silent[kept] = c;
            kept += flat;
        }
        left = kept;
        offset += advance(rest, outer, at);
    }
    free(silent);
}

/* ---- one tensor ------------------------------------------------------------------------------------------------ */

typedef struct {
    Source source;
    Layout rest;     /* all axes but the channel axis */
    int64_t channel_stride;
    bool has_units; /* the channel axis is there and as long as it should be */
} Tensor;

/* Set the flags (units,) of units with a value outside the region; `outside` is how many values are. */
static void add_fired(const Tensor *x, const Region *region, int64_t outside, uint8_t *flags, int64_t units) {
    if (flags && x->has_units && outside && memchr(flags, 0, (size_t)units))
        mark_fired(&x->source, &x->rest, x->channel_stride, region, flags, units);
}

static void add_to_moments(double *row, Moments m) {
    Moments total = {row[0], row[1], row[2]};
    merge_moments(&total, m);
    row[0] = total.num;
    row[1] = total.mean;
    row[2] = total.m2;
}

static void add_to_row(double *row, const Part *part, int64_t zeros) {
    add_to_moments(row + NEG_COUNT, part->neg);
    add_to_moments(row + POS_COUNT, part->pos);
    row[ZEROS] += (double)zeros;
    row[NEAR_ZERO] += (double)part->near_zero;
    row[NEAR_ZERO_NEG] += (double)part->near_zero_neg;
    row[NANS] += (double)part->nans;
    row[INFS] += (double)(part->pos_infs + part->neg_infs);
    row[INF_NEG] += (double)part->neg_infs;
    row[FLAT] += (double)part->flat;
    row[MIN] = fmin(row[MIN], part->min);
    row[MAX] = fmax(row[MAX], part->max);
}

static void observe_tensor(const Tensor *x, Target *target, int threads) {
    static const Region nowhere = NOWHERE, below_zero = BELOW_ZERO;
    Part parts[MAX_CHUNKS];
    int64_t hist[NUM_BINS] = {0}, n = x->source.n, chunk = (n + MAX_CHUNKS - 1) / MAX_CHUNKS;
    chunk = chunk < MIN_CHUNK ? MIN_CHUNK : (chunk + BLOCK - 1) / BLOCK * BLOCK;
    Job job = {.source = x->source, .chunk = chunk, .chunks = (int)((n + chunk - 1) / chunk), .parts = parts};
    job.region = target->flat_on_output ? target->region : nowhere;
    atomic_init(&job.next, 0);
    if (threads < 2 || n < PARALLEL_FROM || !work_with_help(&job, hist))
        work(&job, hist);
    for (int c = 1; c < job.chunks; c++)
        merge_parts(&parts[0], &parts[c]);
    const Part *all = &parts[0];
    int64_t zeros = n - (int64_t)all->neg.num - (int64_t)all->pos.num - all->nans - all->pos_infs - all->neg_infs;
    add_to_row(target->row, all, zeros);
    /* the tables counted zeros as underflow, NaN and infinity as overflow */
    hist[ZERO_BIN] += zeros;
    hist[ZERO_BIN + 1] -= zeros;
    hist[NUM_BINS - 1] -= all->nans + all->pos_infs;
    hist[0] -= all->neg_infs;
    for (int i = 0; i < NUM_BINS; i++)
        target->hist[i] += hist[i];
    if (target->flat_on_output)
        add_fired(x, &job.region, n - all->flat, target->fired, target->units);
    add_fired(x, &below_zero, (int64_t)all->pos.num + all->nans + all->pos_infs, target->rectified, target->units);
}

static void observe_flat_tensor(const Tensor *x, Target *target) {
    const Source *s = &x->source;
    const Region *region = &target->region;
    int64_t flat = 0;
    Scratch scratch;
    for (int64_t i = 0; i < s->n; i += BLOCK) {
        int n = s->n - i < BLOCK ? (int)(s->n - i) : BLOCK;
        if (s->type == FLOAT64) {
            const double *v = (const double *)raw_block(s, i, n, &scratch);
            for (int k = 0; k < n; k++)
                flat += in_region64(v[k], region);
        } else {
            flat += the_kernel->count_flat(float_block(s, i, n, &scratch), n, region);
        }
    }
    target->row[FLAT] += (double)flat;
    add_fired(x, region, s->n - flat, target->fired, target->units);
}

/* ---- Python ---------------------------------------------------------------------------------------------------- */

static const char CAPSULE[] = "actograph.sketch.target";

static void free_target(PyObject *capsule) { free(PyCapsule_GetPointer(capsule, CAPSULE)); }

/* target(row, hist, fired, rectified, units, channel_axis, flat_on_output, intervals): addresses (0: none) of what is
 * written, and where the layer is flat */
static PyObject *py_target(PyObject *self, PyObject *args) {
    unsigned long long row, hist, fired, rectified;
    long long units, axis;
    int on_output;
    double low[2] = {0}, high[2] = {0};
    PyObject *intervals;
    (void)self;
    if (!PyArg_ParseTuple(args, "KKKKLLpO!", &row, &hist, &fired, &rectified, &units, &axis, &on_output, &PyTuple_Type,
                          &intervals))
        return NULL;
    Py_ssize_t num = PyTuple_Size(intervals);
    if (num > 2)
        return PyErr_Format(PyExc_ValueError, "a flat region has %zd intervals; at most 2 are counted", num);
    for (Py_ssize_t i = 0; i < num; i++)
        if (!PyArg_ParseTuple(PyTuple_GetItem(intervals, i), "dd", &low[i], &high[i]))
            return NULL;
    Target *t = calloc(1, sizeof *t);
    if (!t)
        return PyErr_NoMemory();
    t->row = (double *)(uintptr_t)row;
    t->hist = (int64_t *)(uintptr_t)hist;
    t->fired = (uint8_t *)(uintptr_t)fired;
    t->rectified = (uint8_t *)(uintptr_t)rectified;
    t->units = units;
    t->channel_axis = axis;
    t->flat_on_output = on_output;
    t->region = (Region)NOWHERE;
    t->region.intervals = (int)num;
    for (Py_ssize_t i = 0; i < num; i++) {
        t->region.low64[i] = low[i] < -DBL_MAX ? -DBL_MAX : low[i];
        t->region.high64[i] = high[i] > DBL_MAX ? DBL_MAX : high[i];
        t->region.low[i] = smallest_float_above(low[i] < -FLT_MAX ? -FLT_MAX : low[i]);
        t->region.high[i] = largest_float_below(high[i] > FLT_MAX ? FLT_MAX : high[i]);
    }
    PyObject *capsule = PyCapsule_New(t, CAPSULE, free_target);
    if (!capsule)
        free(t);
    return capsule;
}

static bool read_longs(PyObject *tuple, int num, int64_t *out) {
    for (int i = 0; i < num; i++)
        out[i] = PyLong_AsLongLong(PyTuple_GetItem(tuple, i));
    return !PyErr_Occurred();
}

/* Fill in what the arguments say: -1 with an exception set, 0 where the tensor cannot be taken, else 1. */
static int read_tensor(PyObject *const *args, const Target *target, Tensor *x) {
    uintptr_t address = (uintptr_t)PyLong_AsUnsignedLongLong(args[1]);
    long type = PyLong_AsLong(args[2]);
    Py_ssize_t dims = PyTuple_Size(args[3]);
    if (PyErr_Occurred() || dims != PyTuple_Size(args[4]) || type < 0 || type >= NUM_TYPES) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "sizes and strides differ in length, or the type is unknown");
        return -1;
    }
    if (dims > MAX_DIMS)
        return 0;
    int64_t size[MAX_DIMS], stride[MAX_DIMS], n = 1;
    if (!read_longs(args[3], (int)dims, size) || !read_longs(args[4], (int)dims, stride))
        return -1;
    for (int d = 0; d < (int)dims; d++)
        n *= size[d];
    x->source.base = (const char *)address;
    x->source.type = (Type)type;
    x->source.n = n;
    if (n == 0)
        return 1;
    if (!address || n > MAX_ELEMENTS)
        return 0; /* no memory behind it, or 512 GB */
    x->source.layout = make_layout((int)dims, size, stride, -1);
    int64_t axis = target->channel_axis < 0 ? target->channel_axis + dims : target->channel_axis;
    x->has_units = target->units && axis >= 0 && axis < dims && size[axis] == target->units;
    if (x->has_units) {
        x->rest = make_layout((int)dims, size, stride, (int)axis);
        x->channel_stride = stride[axis];
    }
    return 1;
}

static Target *read_target(PyObject *const *args, Py_ssize_t num, Py_ssize_t expected) {
    if (num != expected) {
        PyErr_Format(PyExc_TypeError, "expected %zd arguments, got %zd", expected, num);
        return NULL;
    }
    return PyCapsule_GetPointer(args[0], CAPSULE);
}

/* observe(target, address, type, sizes, strides, threads) -> bool: False where the tensor cannot be taken */
static PyObject *py_observe(PyObject *self, PyObject *const *args, Py_ssize_t num) {
    (void)self;
    Tensor x = {0};
    Target *target = read_target(args, num, 6);
    if (!target)
        return NULL;
    int taken = read_tensor(args, target, &x);
    long threads = PyLong_AsLong(args[5]);
    if (taken < 0 || PyErr_Occurred())
        return NULL;
    if (taken && x.source.n >= RELEASE_FROM) {
        PyThreadState *thread = PyEval_SaveThread();
        observe_tensor(&x, target, (int)threads);
        PyEval_RestoreThread(thread);
    } else if (taken && x.source.n) {
        observe_tensor(&x, target, 1);
    }
    return PyBool_FromLong(taken);
}

/* observe_flat(target, address, type, sizes, strides) -> bool: only the flat count and the units that fired */
static PyObject *py_observe_flat(PyObject *self, PyObject *const *args, Py_ssize_t num) {
    (void)self;
    Tensor x = {0};
    Target *target = read_target(args, num, 5);
    if (!target)
        return NULL;
    int taken = read_tensor(args, target, &x);
    if (taken < 0)
        return NULL;
    if (taken && x.source.n) {
        PyThreadState *thread = PyEval_SaveThread();
        observe_flat_tensor(&x, target);
        PyEval_RestoreThread(thread);
    }
    return PyBool_FromLong(taken);
}

/* ---- the end of a step ------------------------------------------------------------------------------------------ */

/* Copy rows (num, NUM_FIELDS) and histograms (num, NUM_BINS), and leave those of nothing measured behind. */
static void move_rows(double *values, int64_t *counts, int64_t num, double *rows, uint32_t *hist, double step) {
    memcpy(rows, values, (size_t)num * NUM_FIELDS * sizeof *rows);
    memset(values, 0, (size_t)num * NUM_FIELDS * sizeof *values);
    for (int64_t r = 0; r < num; r++) {
        values[r * NUM_FIELDS + MIN] = values[r * NUM_FIELDS + FIRST_NON_FINITE] = INFINITY;
        values[r * NUM_FIELDS + MAX] = -INFINITY;
        if (rows[r * NUM_FIELDS + NANS] + rows[r * NUM_FIELDS + INFS] > 0)
            rows[r * NUM_FIELDS + FIRST_NON_FINITE] = step;
    }
    for (int64_t i = 0; i < num * NUM_BINS; i++)
        hist[i] = (uint32_t)counts[i];
    memset(counts, 0, (size_t)num * NUM_BINS * sizeof *counts);
}

/* Pack flags, a byte each, into bits, the first into the lowest, and clear them. */
static void move_flags(uint8_t *flags, int64_t num_bytes, uint8_t *packed) {
    for (int64_t i = 0; i < num_bytes; i++) {
        uint8_t bits = 0;
        for (int j = 0; j < 8; j++)
            bits |= (uint8_t)(flags[8 * i + j] << j);
        packed[i] = bits;
    }
    memset(flags, 0, (size_t)num_bytes * 8);
}

/* What `rectify` in derived.py does to one row. */
static void rectify(double *row, uint32_t *hist) {
    double made_zero = row[NEG_COUNT] + row[INF_NEG], zeros = row[ZEROS] + made_zero;
    row[NEAR_ZERO] += made_zero - row[NEAR_ZERO_NEG];
    row[ZEROS] = row[FLAT] = zeros;
    row[INFS] -= row[INF_NEG];
    if (zeros > 0) {
        row[MIN] = 0.0;
        row[MAX] = fmax(row[MAX], 0.0);
    }
    row[NEG_COUNT] = row[NEG_MEAN] = row[NEG_M2] = row[NEAR_ZERO_NEG] = row[INF_NEG] = 0.0;
    memset(hist, 0, ZERO_BIN * sizeof *hist);
    hist[ZERO_BIN] = (uint32_t)zeros;
    if (row[NANS] + row[INFS] == 0)
        row[FIRST_NON_FINITE] = INFINITY;
}

typedef struct {
    void *items;
    int64_t num;
} Array;

/* Return the memory of a contiguous array; NULL, and an exception set, where it is none. The caller keeps it alive. */
static Array array_of(PyObject *object, Py_ssize_t item_bytes) {
    Py_buffer view;
    if (!object || PyErr_Occurred() || PyObject_GetBuffer(object, &view, PyBUF_WRITABLE) < 0)
        return (Array){NULL, 0};
    Array array = {view.buf, view.len / item_bytes};
    PyBuffer_Release(&view);
    return array;
}

static PyObject *misfit(void) {
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "arrays are missing, or their sizes do not fit together");
    return NULL;
}

/* collect(values, counts, flags, rows, hist, packed, step): tuples of the chunks of a block, and where their beginnings are
 * to be moved: as much as there is room for */
static PyObject *py_collect(PyObject *self, PyObject *const *args, Py_ssize_t num) {
    (void)self;
    if (num != 7)
        return misfit();
    double step = PyFloat_AsDouble(args[6]);
    Array rows = array_of(args[3], sizeof(double) * NUM_FIELDS), hist = array_of(args[4], sizeof(uint32_t) * NUM_BINS);
    Array packed = array_of(args[5], 1);
    if (PyErr_Occurred() || rows.num != hist.num)
        return misfit();
    int64_t done = 0;
    for (Py_ssize_t c = 0; done < rows.num; c++) {
        Array values = array_of(PyTuple_GetItem(args[0], c), sizeof(double) * NUM_FIELDS);
        Array counts = array_of(PyTuple_GetItem(args[1], c), sizeof(int64_t) * NUM_BINS);
        if (PyErr_Occurred() || values.num != counts.num)
            return misfit();
        int64_t take = values.num < rows.num - done ? values.num : rows.num - done;
        move_rows(values.items, counts.items, take, (double *)rows.items + done * NUM_FIELDS,
                  (uint32_t *)hist.items + done * NUM_BINS, step);
        done += take;
    }
    done = 0;
    for (Py_ssize_t c = 0; done < packed.num; c++) {
        Array flags = array_of(PyTuple_GetItem(args[2], c), 8);
        if (PyErr_Occurred())
            return misfit();
        int64_t take = flags.num < packed.num - done ? flags.num : packed.num - done;
        move_flags(flags.items, take, (uint8_t *)packed.items + done);
        done += take;
    }
    Py_RETURN_NONE;
}

typedef struct {
    int64_t slot, parent, rectifies;
} Follower;

/* derive(rows, hist, followers): fill in rows that follow from others; followers (num, 3) of slot, parent and whether a
 * ReLU is between, parents before their heirs */
static PyObject *py_derive(PyObject *self, PyObject *const *args, Py_ssize_t num) {
    (void)self;
    if (num != 3)
        return misfit();
    Array rows = array_of(args[0], sizeof(double) * NUM_FIELDS), hist = array_of(args[1], sizeof(uint32_t) * NUM_BINS);
    Array followers = array_of(args[2], sizeof(Follower));
    if (PyErr_Occurred() || rows.num != hist.num)
        return misfit();
    for (int64_t i = 0; i < followers.num; i++) {
        Follower f = ((Follower *)followers.items)[i];
        if (f.slot < 0 || f.slot >= rows.num || f.parent < 0 || f.parent >= rows.num || f.slot == f.parent)
            return misfit();
        double *row = (double *)rows.items + f.slot * NUM_FIELDS;
        uint32_t *counts = (uint32_t *)hist.items + f.slot * NUM_BINS;
        memcpy(row, (double *)rows.items + f.parent * NUM_FIELDS, NUM_FIELDS * sizeof *row);
        memcpy(counts, (uint32_t *)hist.items + f.parent * NUM_BINS, NUM_BINS * sizeof *counts);
        row[FLAT] = 0.0; /* an alias has no flat region */
        if (f.rectifies)
            rectify(row, counts);
    }
    Py_RETURN_NONE;
}

/* kernels() -> names of those this processor can run, best first */
static PyObject *py_kernels(PyObject *self, PyObject *unused) {
    (void)self, (void)unused;
    PyObject *names = PyList_New(0);
    for (int k = 0; names && k < NUM_KERNELS; k++) {
        if (!is_supported(&KERNELS[k]))
            continue;
        PyObject *name = PyUnicode_FromString(KERNELS[k].name);
        if (!name || PyList_Append(names, name) < 0)
            Py_CLEAR(names);
        Py_XDECREF(name);
    }
    return names;
}

/* use(name) -> name of the kernel used so far; for tests and benchmarks */
static PyObject *py_use(PyObject *self, PyObject *name) {
    (void)self;
    const char *before = the_kernel->name;
    for (int k = 0; k < NUM_KERNELS; k++) {
        if (is_supported(&KERNELS[k]) && PyUnicode_CompareWithASCIIString(name, KERNELS[k].name) == 0) {
            the_kernel = &KERNELS[k];
            return PyUnicode_FromString(before);
        }
    }
    return PyErr_Format(PyExc_ValueError, "no kernel %R on this processor", name);
}

static int start_module(PyObject *module) {
    for (int k = NUM_KERNELS - 1; k >= 0; k--)
        if (is_supported(&KERNELS[k]))
            the_kernel = &KERNELS[k];
#if HAVE_WORKER
    static bool is_registered;
    if (!is_registered && pthread_atfork(NULL, NULL, forget_worker) == 0)
        is_registered = true;
#endif
    /* what native.py compares with layout/ */
    return PyModule_AddIntConstant(module, "NUM_BINS", NUM_BINS) || PyModule_AddIntConstant(module, "KEY_LOW", KEY_LOW) ||
           PyModule_AddIntConstant(module, "NUM_FIELDS", NUM_FIELDS);
}

static PyMethodDef METHODS[] = {
    {"target", py_target, METH_VARARGS, NULL},
    {"observe", (PyCFunction)(void (*)(void))py_observe, METH_FASTCALL, NULL},
    {"observe_flat", (PyCFunction)(void (*)(void))py_observe_flat, METH_FASTCALL, NULL},
    {"collect", (PyCFunction)(void (*)(void))py_collect, METH_FASTCALL, NULL},
    {"derive", (PyCFunction)(void (*)(void))py_derive, METH_FASTCALL, NULL},
    {"kernels", py_kernels, METH_NOARGS, NULL},
    {"use", py_use, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, start_module}, {0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, "_observe", "See native.py.", 0, METHODS, SLOTS, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__observe(void) { return PyModuleDef_Init(&MODULE); }

#else /* ---- KERNEL: one vector kernel --------------------------------------------------------------------------- */

#if KERNEL == 512
#define NAME(f) f##_avx512
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
#define WIDTH 16
#define VECTOR __m512
#define COUNTS __m512i
#define MASK __mmask16
#define SET _mm512_set1_ps
#define LOAD _mm512_loadu_ps
#define COMPARE _mm512_cmp_ps_mask
#define BETWEEN(v, low, high) _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(v, low, _CMP_GE_OQ), v, high, _CMP_LE_OQ)
#define EITHER(a, b) ((__mmask16)((a) | (b)))
#define BOTH(a, b) ((__mmask16)((a) & (b)))
#define BITS(m) ((uint32_t)(m))
#define DEVIATION _mm512_maskz_sub_ps /* x - shift where the mask holds, else 0 */
#define ADD _mm512_add_ps
#define ADD_SQUARE(d, sum) _mm512_fmadd_ps(d, d, sum)
#define LOWER _mm512_min_ps
#define UPPER _mm512_max_ps
#define MAGNITUDE _mm512_abs_ps
#define NO_COUNTS _mm512_setzero_si512()
#define COUNT(c, m) _mm512_mask_sub_epi32(c, m, c, _mm512_set1_epi32(-1))
#define COUNT_HIGH(c, m) _mm512_mask_add_epi32(c, m, c, _mm512_set1_epi32(1 << 16))
#define SUM_OF(v) ((double)_mm512_reduce_add_ps(v))
#define COUNT_OF(c) _mm512_reduce_add_epi32(c)
#define LOWEST_OF _mm512_reduce_min_ps
#define HIGHEST_OF _mm512_reduce_max_ps

TARGET static ALWAYS_INLINE void NAME(store_keys)(uint16_t *keys, VECTOR magnitude, MASK neg) {
    __m512i key = _mm512_srli_epi32(_mm512_castps_si512(magnitude), KEY_SHIFT);
    key = _mm512_min_epi32(_mm512_max_epi32(key, _mm512_set1_epi32(KEY_LOW)), _mm512_set1_epi32(KEY_HIGH));
    key = _mm512_mask_add_epi32(key, neg, key, _mm512_set1_epi32(NEG_TABLE));
    _mm256_storeu_si256((__m256i *)keys, _mm512_cvtepi32_epi16(key));
}

TARGET static void NAME(from_half)(const uint16_t *x, int n, float *out) {
    int i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        _mm512_storeu_ps(out + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(x + i))));
    from_half(x + i, n - i, out + i);
}

#else
#define NAME(f) f##_avx2
#define TARGET __attribute__((target("avx2,fma,f16c")))
#define WIDTH 8
#define VECTOR __m256
#define COUNTS __m256i
#define MASK __m256
#define SET _mm256_set1_ps
#define LOAD _mm256_loadu_ps
#define COMPARE _mm256_cmp_ps
#define BETWEEN(v, low, high) _mm256_and_ps(_mm256_cmp_ps(v, low, _CMP_GE_OQ), _mm256_cmp_ps(v, high, _CMP_LE_OQ))
#define EITHER _mm256_or_ps
#define BOTH _mm256_and_ps
#define BITS(m) ((uint32_t)_mm256_movemask_ps(m))
#define DEVIATION(m, v, shift) _mm256_and_ps(m, _mm256_sub_ps(v, shift))
#define ADD _mm256_add_ps
#define ADD_SQUARE(d, sum) _mm256_fmadd_ps(d, d, sum)
#define LOWER _mm256_min_ps
#define UPPER _mm256_max_ps
#define MAGNITUDE(v) _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff)))
#define NO_COUNTS _mm256_setzero_si256()
#define COUNT(c, m) _mm256_sub_epi32(c, _mm256_castps_si256(m))
#define COUNT_HIGH(c, m) _mm256_sub_epi32(c, _mm256_slli_epi32(_mm256_castps_si256(m), 16))
#define SUM_OF NAME(sum_of)
#define COUNT_OF NAME(count_of)
#define LOWEST_OF NAME(lowest_of)
#define HIGHEST_OF NAME(highest_of)

TARGET static ALWAYS_INLINE void NAME(store_keys)(uint16_t *keys, VECTOR magnitude, MASK neg) {
    __m256i key = _mm256_srli_epi32(_mm256_castps_si256(magnitude), KEY_SHIFT);
    key = _mm256_min_epi32(_mm256_max_epi32(key, _mm256_set1_epi32(KEY_LOW)), _mm256_set1_epi32(KEY_HIGH));
    key = _mm256_add_epi32(key, _mm256_and_si256(_mm256_castps_si256(neg), _mm256_set1_epi32(NEG_TABLE)));
    _mm_storeu_si128((__m128i *)keys, _mm_packus_epi32(_mm256_castsi256_si128(key), _mm256_extracti128_si256(key, 1)));
}

TARGET static void NAME(from_half)(const uint16_t *x, int n, float *out) {
    int i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(x + i))));
    from_half(x + i, n - i, out + i);
}

TARGET static ALWAYS_INLINE double NAME(sum_of)(__m256 v) {
    float lanes[8];
    _mm256_storeu_ps(lanes, v);
    return (((double)lanes[0] + lanes[1]) + ((double)lanes[2] + lanes[3])) +
           (((double)lanes[4] + lanes[5]) + ((double)lanes[6] + lanes[7]));
}

TARGET static ALWAYS_INLINE int64_t NAME(count_of)(__m256i counts) {
    int32_t lanes[8];
    int64_t total = 0;
    _mm256_storeu_si256((__m256i *)lanes, counts);
    for (int i = 0; i < 8; i++)
        total += lanes[i];
    return total;
}

TARGET static ALWAYS_INLINE float NAME(lowest_of)(__m256 v) {
    __m128 m = _mm_min_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_min_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_min_ss(m, _mm_movehdup_ps(m)));
}

TARGET static ALWAYS_INLINE float NAME(highest_of)(__m256 v) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
#endif

#define ALL_BITS ((1u << WIDTH) - 1)

TARGET static ALWAYS_INLINE MASK NAME(flat_mask)(VECTOR v, const Region *r, const int intervals) {
    MASK flat = BETWEEN(v, SET(r->low[0]), SET(r->high[0]));
    return intervals > 1 ? EITHER(flat, BETWEEN(v, SET(r->low[1]), SET(r->high[1]))) : flat;
}

/* n is a multiple of WIDTH and at most BLOCK. NaN counts as positive here: it makes pos_squares NaN, which is how the
 * caller learns of it. */
TARGET static ALWAYS_INLINE void NAME(sums)(const float *x, int n, const Region *region, const float shift[2],
                                            uint32_t *tables, Sums *out, const int intervals) {
    const VECTOR zero = SET(0.0f), neg_shift = SET(shift[0]), pos_shift = SET(shift[1]);
    const VECTOR near_limit = SET(largest_float_below(NEAR_ZERO_LIMIT));
    VECTOR neg_sum = zero, neg_squares = zero, pos_sum = zero, pos_squares = zero;
    VECTOR low = SET(INFINITY), high = SET(-INFINITY);
    COUNTS neg = NO_COUNTS, pos = NO_COUNTS, near_zero = NO_COUNTS, flat = NO_COUNTS;
    _Alignas(64) uint16_t keys[BLOCK + LAG];
    for (int i = 0; i < LAG; i++)
        keys[i] = NO_KEY;
    for (int i = 0; i < n; i += WIDTH) {
        VECTOR v = LOAD(x + i), magnitude = MAGNITUDE(v);
        MASK is_neg = COMPARE(v, zero, _CMP_LT_OQ), is_pos = COMPARE(v, zero, _CMP_NLE_UQ);
        NAME(store_keys)(keys + LAG + i, magnitude, is_neg);
        VECTOR dn = DEVIATION(is_neg, v, neg_shift), dp = DEVIATION(is_pos, v, pos_shift);
        neg_sum = ADD(neg_sum, dn);
        neg_squares = ADD_SQUARE(dn, neg_squares);
        pos_sum = ADD(pos_sum, dp);
        pos_squares = ADD_SQUARE(dp, pos_squares);
        neg = COUNT(neg, is_neg);
        pos = COUNT(pos, is_pos);
        MASK is_near = COMPARE(magnitude, near_limit, _CMP_LE_OQ);
        near_zero = COUNT(near_zero, is_near);
        near_zero = COUNT_HIGH(near_zero, BOTH(is_near, is_neg)); /* one register holds both: AVX2 has few */
        if (intervals)
            flat = COUNT(flat, NAME(flat_mask)(v, region, intervals));
        low = LOWER(v, low);
        high = UPPER(v, high);
        for (int j = 0; j < WIDTH; j++)
            tables[TABLE_STRIDE * (j % NUM_TABLES) + keys[i + j] - KEY_LOW]++;
    }
    for (int i = n; i < n + LAG; i++)
        tables[TABLE_STRIDE * (i % NUM_TABLES) + keys[i] - KEY_LOW]++;
    const int64_t near = COUNT_OF(near_zero); /* at most BLOCK in either half */
    *out = (Sums){SUM_OF(neg_sum), SUM_OF(neg_squares), SUM_OF(pos_sum), SUM_OF(pos_squares),
                  COUNT_OF(neg), COUNT_OF(pos), near & 0xffff,
                  near >> 16, COUNT_OF(flat), LOWEST_OF(low), HIGHEST_OF(high)};
}

#define DEFINE_SUMS(intervals)                                                                                         \
    TARGET static void NAME(sums##intervals)(const float *x, int n, const Region *region, const float shift[2],        \
                                             uint32_t *tables, Sums *out) {                                            \
        NAME(sums)(x, n, region, shift, tables, out, intervals);                                                       \
    }
DEFINE_SUMS(0)
DEFINE_SUMS(1)
DEFINE_SUMS(2)

TARGET static int64_t NAME(count_flat)(const float *x, int64_t n, const Region *region) {
    int64_t i = 0, total = 0;
    while (region->intervals && n - i >= WIDTH) {
        COUNTS flat = NO_COUNTS;
        int64_t end = i + (n - i < BLOCK ? (n - i) / WIDTH * WIDTH : BLOCK); /* 32-bit lanes do not overflow */
        if (region->intervals == 1)
            for (; i < end; i += WIDTH)
                flat = COUNT(flat, NAME(flat_mask)(LOAD(x + i), region, 1));
        else
            for (; i < end; i += WIDTH)
                flat = COUNT(flat, NAME(flat_mask)(LOAD(x + i), region, 2));
        total += COUNT_OF(flat);
    }
    return total + count_flat_plain(x + i, n - i, region);
}

TARGET static bool NAME(all_flat)(const float *x, int64_t n, const Region *region) {
    int64_t i = 0;
    for (; region->intervals && i + WIDTH <= n; i += WIDTH)
        if (BITS(NAME(flat_mask)(LOAD(x + i), region, 2)) != ALL_BITS)
            return false;
    return all_flat_plain(x + i, n - i, region);
}

TARGET static uint32_t NAME(still_flat)(const float *x, const int64_t *rows, int num, const Region *region,
                                        uint32_t silent) {
    for (int r = 0; r < num && silent; r++)
        for (int j = 0; j < STRIP; j += WIDTH)
            silent &= ~((ALL_BITS ^ BITS(NAME(flat_mask)(LOAD(x + rows[r] + j), region, 2))) << j);
    return silent;
}

#undef NAME
#undef TARGET
#undef WIDTH
#undef VECTOR
#undef COUNTS
#undef MASK
#undef SET
#undef LOAD
#undef COMPARE
#undef BETWEEN
#undef EITHER
#undef BOTH
#undef BITS
#undef ALL_BITS
#undef DEVIATION
#undef ADD
#undef ADD_SQUARE
#undef LOWER
#undef UPPER
#undef MAGNITUDE
#undef NO_COUNTS
#undef COUNT
#undef COUNT_HIGH
#undef SUM_OF
#undef COUNT_OF
#undef LOWEST_OF
#undef HIGHEST_OF
#undef DEFINE_SUMS

#endif
