/* A forward pass of scratchlm's GPT: the same model as scratchlm/model/, written for speed.
 *
 * `forward` takes a list of tokens, each with its slot in the key-value cache and its position, and computes the
 * logits after those that ask for them. One new token of each running text, a long prompt, or a mixture of both is
 * the same call. Weights are float32, or 8- or 4-bit codes with scales. Sums are float32, or whole numbers where the
 * processor multiplies codes as they are.
 *
 * Every sum is over the same numbers in the same order however many tokens share a call, so a text's logits never
 * depend on its neighbours, bit for bit. `dot_tile` and `dot_codes` are where nearly all the time goes.
 *
 * Notation: E width of the residual stream, D width of a head, F width of the feed-forward network, V vocabulary.
 */
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

/* ---- Vectors: the compiler turns these into the processor's own instructions ---- */

#ifdef __AVX512F__ /* 32 registers of 16 floats */
#define LANES 16
#define TOKEN_TILE 4
#else
#define LANES 8
#define TOKEN_TILE 3
#endif
#ifdef __AVX__ /* stops the compiler from loading a vector again for each use */
#define KEEP_IN_REGISTER(v) __asm__("" : "+x"(v))
#else
#define KEEP_IN_REGISTER(v) (void)0
#endif
typedef float floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float float4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint8_t bytes __attribute__((vector_size(4 * LANES), aligned(1), may_alias));
typedef int8_t chars __attribute__((vector_size(LANES), aligned(1), may_alias)); /* one byte per lane */

static inline floats load(const float *x) { return *(const floats *)x; }
static inline void store(float *x, floats v) { *(floats *)x = v; }
static inline floats all(float x) { return x - (floats){0}; }
static inline ints lanes(void) { /* 0, 1, 2, ... */
#if LANES == 16
    return (ints){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#else
    return (ints){0, 1, 2, 3, 4, 5, 6, 7};
#endif
}

/* Where the comparison holds, a; elsewhere b. */
static inline floats pick(ints condition, floats a, floats b) {
    return (floats)((condition & (ints)a) | (~condition & (ints)b));
}

static inline float sum_lanes(floats v) {
    union { floats whole; float4 parts[LANES / 4]; } u = {v};
    float4 sum = u.parts[0] + u.parts[1];
    if (LANES == 16) sum += u.parts[LANES / 4 - 2] + u.parts[LANES / 4 - 1];
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

/* y[t * stride + r] = sum_lanes(v[r][t]), or that much more. Sixteen sums are added up together, in the same order as
 * one alone. */
static inline __attribute__((always_inline)) void store_sums(const floats v[4][4], int add, float *y, long stride) {
#ifdef __AVX512F__
    __m512 four[4], pairs[2];
    for (int r = 0; r < 4; r++) { /* in each fourth of a vector one t, first with two numbers of each fourth */
        __m512 a = (__m512)v[r][0], b = (__m512)v[r][1], c = (__m512)v[r][2], d = (__m512)v[r][3];
        a = _mm512_shuffle_f32x4(a, b, 0x88) + _mm512_shuffle_f32x4(a, b, 0xdd);
        c = _mm512_shuffle_f32x4(c, d, 0x88) + _mm512_shuffle_f32x4(c, d, 0xdd);
        four[r] = _mm512_shuffle_f32x4(a, c, 0x88) + _mm512_shuffle_f32x4(a, c, 0xdd);
    }
    for (int i = 0; i < 2; i++)
        pairs[i] = _mm512_unpacklo_ps(four[2 * i], four[2 * i + 1]) + _mm512_unpackhi_ps(four[2 * i], four[2 * i + 1]);
    __m512d low = _mm512_unpacklo_pd((__m512d)pairs[0], (__m512d)pairs[1]);
    __m512d high = _mm512_unpackhi_pd((__m512d)pairs[0], (__m512d)pairs[1]);
    union { __m512 whole; float4 tokens[4]; } u = {(__m512)low + (__m512)high};
    for (int t = 0; t < 4; t++, y += stride) {
        if (add) u.tokens[t] += *(float4 *)y;
        *(float4 *)y = u.tokens[t];
    }
#else
    for (int r = 0; r < 4; r++)
        for (int t = 0; t < 4; t++) y[t * stride + r] = sum_lanes(v[r][t]) + (add ? y[t * stride + r] : 0);
#endif
}

/* exp(x): 2^n times a polynomial in the rest, within 2 units in the last place. Source: Cephes, expf. */
static inline floats exp_floats(floats x) {
    x = pick(x < -87.0f, all(-87.0f), pick(x > 88.0f, all(88.0f), x));
    floats whole = x * 1.44269504f + 12582912.0f - 12582912.0f; /* 1.5 * 2^23 leaves no room for a fraction */
    ints n = __builtin_convertvector(whole, ints);
    floats r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    floats p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    ints bits = (n + 127) << 23;
    return p * (floats)bits;
}

/* ---- The model, as Python describes it (native/kernel.py has the same fields in the same order) ---- */

enum { NONE, FLOAT32, INT8, INT4, INT4_OFFSET, TABLE4 };

typedef struct { /* weights (n_out, n_in): scale * code, plus an offset or through a table, per group of inputs */
    int32_t kind, n_out, n_in, group;
    const void *codes;
    const float *scale, *offset, *table, *bias;
    int32_t order; /* of the inputs that `dot_codes` multiplies codes with; 0: they are multiplied as floats */
} Matrix;

typedef struct { const float *scale, *shift; } Norm;

typedef struct {
    Matrix query, key, value, out, gate, up, down;
    Norm norm1, norm2, query_norm, key_norm;
    float *keys, *values; /* the cache: (slots, KV heads, capacity, D) */
} Layer;

typedef struct {
    int32_t n_layers, emb_dim, n_heads, n_kv_heads, head_dim, ff_dim, vocab_size, capacity;
    int32_t norm_is_rms, feed_forward; /* 0 gelu (tanh), 1 gelu_exact, 2 swiglu */
    float norm_eps;
    int32_t max_tokens, n_threads;
    const float *positions;   /* (context, E), or NULL with rotary positions */
    const float *cosines, *sines; /* (capacity, D), or NULL with learned positions */
    Matrix embedding, head;
    Norm final_norm;
    Layer *layers;
} Model;

typedef struct { int32_t id, slot, position, wants_logits; } Token;

/* ---- Threads: all run the same function and meet at barriers ---- */

typedef struct Engine Engine;
struct Engine {
    Model model;
    int32_t n_wanted;
    const Token *tokens;
    int32_t n_tokens;
    float *logits, *probs;
    int32_t *best;
    int32_t *wanted; /* numbers of the tokens that want logits */
    float *x, *normed, *q, *mixed, *hidden, *gated; /* one row per token */
    struct Inputs *inputs;     /* the encoded inputs of the matrices of the next phase, with of each token: */
    float *group_sums;     /* the sum of the inputs of each group */
    long n_inputs, n_sums; /* per token */
    float **own;     /* per thread: scores of attention, and weights as floats */
    pthread_t *threads;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    atomic_int n_arrived, generation, next_unit, call, quit;
};

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

enum { SPINS = 2000 }; /* some 30 microseconds; after that another program probably has the core */

static void wait_for_change(atomic_int *value, int old) {
    for (int spins = 0; atomic_load_explicit(value, memory_order_acquire) == old; spins++)
        if (spins < SPINS) relax(); else sched_yield();
}

/* Each thread waits here for all others. The last one to arrive resets the work counter for the next phase. */
static void barrier(Engine *e) {
    int generation = atomic_load_explicit(&e->generation, memory_order_acquire);
    if (atomic_fetch_add(&e->n_arrived, 1) + 1 == e->model.n_threads) {
        atomic_store(&e->next_unit, 0);
        atomic_store(&e->n_arrived, 0);
        atomic_store_explicit(&e->generation, generation + 1, memory_order_release);
    } else {
        wait_for_change(&e->generation, generation);
    }
}

/* The units of work of a phase are handed out one by one, so that a slow core takes fewer. */
static inline int next_unit(Engine *e) { return atomic_fetch_add_explicit(&e->next_unit, 1, memory_order_relaxed); }
#define FOR_UNITS(u, n) for (int u = next_unit(e); u < (n); u = next_unit(e))

/* ---- Matrix products ---- */

/* A row of weights is multiplied in segments, whose sums are added up one after the other, so that the segment of all
 * tokens stays in the second-level cache while the rows pass. The sum of a long segment is that of its even vectors
 * plus that of its odd ones: two additions can be under way at a time where memory is read from beginning to end. */
enum { SEGMENT = 768, LONG = 512 };

/* y = w . x for one segment, read from beginning to end */
static inline float dot_segment(const float *w, const float *x, int n) {
    floats even = {0}, odd = {0};
    int i = 0;
    for (; n >= LONG && i + 2 * LANES <= n; i += 2 * LANES) {
        even += load(w + i) * load(x + i);
        odd += load(w + i + LANES) * load(x + i + LANES);
    }
    for (; i + LANES <= n; i += LANES) even += load(w + i) * load(x + i);
    float sum = sum_lanes(even + odd);
    for (; i < n; i++) sum = fmaf(w[i], x[i], sum);
    return sum;
}

/* y = w . x for a whole row */
static float dot_row(const float *w, const float *x, int n, int segment) {
    float sum = dot_segment(w, x, n < segment ? n : segment);
    for (int i = segment; i < n; i += segment) sum += dot_segment(w + i, x + i, n - i < segment ? n - i : segment);
    return sum;
}

/* y[r] = w[r] . x for rows of a fixed, small length, in the order of memory; the number of rows done */
static inline __attribute__((always_inline)) int dot_short(int n, const float *w, long w_stride, int n_rows,
                                                           const float *x, float *y) {
    int r = 0;
    for (; r + 16 <= n_rows; r += 16) {
        floats sums[4][4] = {{{0}}};
        for (int k = 0; k < 16; k++)
            for (int i = 0; i < n; i += LANES) sums[k % 4][k / 4] += load(w + (r + k) * w_stride + i) * load(x + i);
        store_sums(sums, 0, y + r, 4);
    }
    for (; r + 4 <= n_rows; r += 4) {
        floats sums[4] = {{0}};
        for (int k = 0; k < 4; k++)
            for (int i = 0; i < n; i += LANES) sums[k] += load(w + (r + k) * w_stride + i) * load(x + i);
        for (int k = 0; k < 4; k++) y[r + k] = sum_lanes(sums[k]);
    }
    return r;
}

/* sums[r][t] += w[r] . x[t] over every `step`th number from `first` on, LANES at a time */
static inline __attribute__((always_inline)) void add_tile(int R, int T, const float *w, long w_stride, const float *x,
                                                           long x_stride, int first, int step, int n,
                                                           floats sums[8][4]) {
    for (int i = first; i + LANES <= n; i += step) {
        floats xs[4];
        for (int t = 0; t < T; t++) {
            xs[t] = load(x + t * x_stride + i);
            KEEP_IN_REGISTER(xs[t]);
        }
        for (int r = 0; r < R; r++) {
            floats ws = load(w + r * w_stride + i);
            KEEP_IN_REGISTER(ws);
            for (int t = 0; t < T; t++) sums[r][t] += ws * xs[t];
        }
    }
}

/* y[t][r] = w[r] . x[t], or that much more, for R rows of weights and T vectors of length n, at most a segment; the
 * R x T sums stay in registers. */
static inline __attribute__((always_inline)) void dot_tile(int R, int T, const float *w, long w_stride, const float *x,
                                                           long x_stride, int n, int add, float *y,
                                                           long y_stride) {
    floats sums[8][4], odd[8][4], zero = {0}; /* initialised in loops, so that the compiler keeps them in registers */
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) sums[r][t] = odd[r][t] = zero;
    if (n < LONG) {
        add_tile(R, T, w, w_stride, x, x_stride, 0, LANES, n, sums);
    } else {
        add_tile(R, T, w, w_stride, x, x_stride, 0, 2 * LANES, n, sums);
        add_tile(R, T, w, w_stride, x, x_stride, LANES, 2 * LANES, n, odd);
        for (int r = 0; r < R; r++)
            for (int t = 0; t < T; t++) sums[r][t] += odd[r][t];
    }
    if (R == 4 && T == 4 && n % LANES == 0) {
        store_sums(sums, add, y, y_stride);
        return;
    }
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) {
            float sum = sum_lanes(sums[r][t]);
            for (int k = n - n % LANES; k < n; k++) sum = fmaf(w[r * w_stride + k], x[t * x_stride + k], sum);
            y[t * y_stride + r] = add ? y[t * y_stride + r] + sum : sum;
        }
}

/* The same for any numbers of rows and vectors. */
static void dot_rows(const float *w, long w_stride, int n_rows, const float *x, long x_stride, int n_tokens, int n,
                     int add, float *y, long y_stride) {
#define TILE(R, T) dot_tile(R, T, w + r * w_stride, w_stride, x, x_stride, n, add, y + r, y_stride)
    for (; n_tokens > 0; n_tokens -= TOKEN_TILE, x += TOKEN_TILE * x_stride, y += TOKEN_TILE * y_stride) {
        int r = 0;
        switch (n_tokens) {
        case 1:
            if (n == 64 && !add) r = dot_short(64, w, w_stride, n_rows, x, y);
            if (n == 128 && !add) r = dot_short(128, w, w_stride, n_rows, x, y);
            for (; r + 8 <= n_rows; r += 8) TILE(8, 1);
            for (; r < n_rows; r++) TILE(1, 1);
            break;
        case 2:
            for (; r + 4 <= n_rows; r += 4) TILE(4, 2);
            for (; r < n_rows; r++) TILE(1, 2);
            break;
#if TOKEN_TILE > 3
        case 3:
            for (; r + 4 <= n_rows; r += 4) TILE(4, 3);
            for (; r < n_rows; r++) TILE(1, 3);
            break;
#endif
        default:
            for (; r + 4 <= n_rows; r += 4) TILE(4, TOKEN_TILE);
            for (; r < n_rows; r++) TILE(1, TOKEN_TILE);
        }
    }
#undef TILE
}

/* table[code] for the low or high four bits of LANES bytes */
static inline floats look_up(const float *table, const uint8_t *codes, int shift) {
#ifdef __AVX512F__
    __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)codes));
    return (floats)_mm512_permutexvar_ps(_mm512_srli_epi32(wide, (unsigned)shift), (__m512)load(table));
#else
    floats found;
    for (int i = 0; i < LANES; i++) found[i] = table[codes[i] >> shift & 15];
    return found;
#endif
}

/* LANES codes of 8 bits as floats; compilers find these instructions only for plain loops over arrays */
static inline floats widen(const int8_t *codes) {
#if defined(__AVX512F__)
    return (floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)codes)));
#elif defined(__AVX2__)
    return (floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)codes)));
#else
    floats wide;
    for (int i = 0; i < LANES; i++) wide[i] = codes[i];
    return wide;
#endif
}

/* How many inputs a segment of a matrix has: a whole number of groups, or a part of a row that is one group. */
static int segment_of(const Matrix *m) {
    int is_divided = SEGMENT % m->group == 0 || (m->group == m->n_in && (m->kind == INT8 || m->kind == FLOAT32));
    return is_divided && m->n_in > SEGMENT ? SEGMENT : m->n_in;
}

/* The weights from input `first` on of one row, as floats. A group of 4-bit codes has its first half in the low four
 * bits of its bytes and its second half in the high four, as in GGUF. */
static void dequantize(const Matrix *m, int row, int first, int n, float *w) {
    int group = m->group < n ? m->group : n, half = group / 2;
    long at = (long)row * m->n_in + first, scale_at = at / m->group;
    const float *scales = m->scale + scale_at;
    const uint8_t *codes = (const uint8_t *)m->codes + at / (m->kind == INT8 ? 1 : 2);
    if (m->kind == FLOAT32)
        memcpy(w, (const float *)m->codes + at, 4 * (size_t)n);
    else if (m->kind == INT8)
        for (int g = 0; g < n / group; g++, codes += group, w += group) {
            int i = 0;
            for (; i + LANES <= group; i += LANES) store(w + i, scales[g] * widen((const int8_t *)codes + i));
            for (; i < group; i++) w[i] = scales[g] * (int8_t)codes[i];
        }
    else if (m->kind == TABLE4)
        for (int g = 0; g < n / group; g++, codes += half, w += group)
            for (int i = 0; i < half; i += LANES) {
                store(w + i, scales[g] * look_up(m->table, codes + i, 0));
                store(w + half + i, scales[g] * look_up(m->table, codes + i, 4));
            }
    else
        for (int g = 0; g < n / group; g++, codes += half, w += group) {
            float offset = m->kind == INT4 ? -8 * scales[g] : m->offset[scale_at + g];
            for (int i = 0; i < half; i++) {
                w[i] = fmaf(scales[g], codes[i] & 15, offset);
                w[i + half] = fmaf(scales[g], codes[i] >> 4, offset);
            }
        }
}

/* Whether `dot_codes_as_floats` can multiply a matrix: its groups are whole numbers of pairs of vectors. */
static int is_fused(const Matrix *m) {
    int is_even = m->group % (2 * LANES) == 0 || (m->group == m->n_in && m->n_in % LANES == 0);
    return (m->kind == INT8 && is_even) || (m->kind == TABLE4 && m->group % (4 * LANES) == 0);
}

/* LANES codes as floats; of 4-bit codes those of the first or the second half of a group */
static inline floats widen_codes(int kind, const Matrix *m, const uint8_t *codes, int part) {
    return kind == INT8 ? widen((const int8_t *)codes) : look_up(m->table, codes, 4 * part);
}

/* y[r] = w[r] . x for rows of codes and one token: the numbers of `dequantize`, summed as in dot_rows, without being
 * stored. */
static inline __attribute__((always_inline)) void dot_codes_as_floats(int kind, const Matrix *m, int row, int n_rows,
                                                                      const float *x, float *y) {
    int n_in = m->n_in, n_parts = kind == TABLE4 ? 2 : 1, segment = segment_of(m), n_groups = n_in / m->group;
    for (int r = 0; r < n_rows; r++) {
        const uint8_t *codes = (const uint8_t *)m->codes + (long)(row + r) * n_in / n_parts;
        const float *scales = m->scale + (long)(row + r) * n_groups;
        for (int first = 0; first < n_in; first += segment) {
            int n = n_in - first < segment ? n_in - first : segment, is_long = n >= LONG;
            int group = m->group < n ? m->group : n, width = group / n_parts;
            floats even = {0}, odd = {0};
            for (int g = first; g < first + n; g += group) {
                float scale = n_groups == 1 ? *scales : *scales++;
                for (int part = 0; part < n_parts; part++) {
                    const float *xs = x + g + part * width;
                    int i = 0;
                    for (; is_long && i + 2 * LANES <= width; i += 2 * LANES) {
                        even += scale * widen_codes(kind, m, codes + i, part) * load(xs + i);
                        odd += scale * widen_codes(kind, m, codes + i + LANES, part) * load(xs + i + LANES);
                    }
                    for (; i < width; i += LANES)
                        even += scale * widen_codes(kind, m, codes + i, part) * load(xs + i);
                }
                codes += width;
            }
            float sum = sum_lanes(even + odd);
            y[r] = first ? y[r] + sum : sum;
        }
    }
}

/* ---- Products with 4-bit codes as integers, where the processor has instructions for them ----
 *
 * A block of a row is one vector of bytes: 8 codes in each lane. The inputs of a lane are rounded to 23-bit fixed
 * point, sign included, relative to the largest of them, about as exact as float32, and cut into three signed bytes
 * (digits of base 256). The products of codes and digits are added up as integers, which have no rounding; then the
 * sums of the lanes are scaled and added to float32 sums. (8-bit codes are faster as floats.)
 */

enum { BLOCK = 4 * LANES, WIDTH = 2 * BLOCK }; /* bytes and codes of one vector */
#define LARGEST 4194000.0f /* below 2^22, the largest number that `encode` can round */

typedef struct Inputs { /* of the low or the high halves of a block */
    int8_t digits[3][BLOCK]; /* the most significant first */
    floats unit; /* what 1 stands for in each lane */
    ints centre; /* what each lane's sum is too large by, negated, since codes are stored as unsigned numbers */
} __attribute__((aligned(64))) Inputs;

/* sum[i] += the products of the lane's four pairs of bytes, unsigned times signed */
static inline ints add_products(ints sum, bytes codes, const int8_t *digits) {
#if defined(__AVX512VNNI__)
    return (ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)codes, _mm512_load_si512(digits));
#elif defined(__AVX512BW__)
    __m512i pairs = _mm512_maddubs_epi16((__m512i)codes, _mm512_load_si512(digits));
    return sum + (ints)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
#elif defined(__AVX2__)
    __m256i pairs = _mm256_maddubs_epi16((__m256i)codes, _mm256_load_si256((const __m256i *)digits));
    return sum + (ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#else
    for (int i = 0; i < BLOCK; i++) sum[i / 4] += codes[i] * digits[i];
    return sum;
#endif
}
#if defined(__AVX512BW__) || (defined(__AVX2__) && !defined(__AVX512F__))
enum { MULTIPLIES_4_BITS = 1 };
#else
enum { MULTIPLIES_4_BITS = 0 };
#endif

/* How the inputs of a matrix are arranged: by the size of its groups, or 0 for floats. */
static int input_order(const Matrix *m) {
    int is_4_bits = m->kind == INT4 || m->kind == INT4_OFFSET;
    return is_4_bits && MULTIPLIES_4_BITS && m->n_in >= WIDTH ? m->group : 0;
}

/* Three digits of each of the codes' inputs at a time: (sum of the first * 256 + sum of the second) * 256 + ... */
static inline ints block_sum(const bytes *codes, const Inputs *x) {
    ints sum = {0};
    for (int d = 0; d < 3; d++) {
        sum <<= 8;
        for (int v = 0; v < 2; v++) sum = add_products(sum, codes[v], x[v].digits[d]);
    }
    return sum;
}

/* Where block number `b` begins in a row: the last one overlaps the one before it rather than the next row. */
static inline int block_start(int b, int n_in) { return (b + 1) * WIDTH <= n_in ? b * WIDTH : n_in - WIDTH; }

/* In each lane the largest of its four neighbours (0 to 3, 4 to 7, ...) */
static inline ints largest_of_four(ints x) {
#if defined(__AVX512F__)
    __m512i pairs = _mm512_max_epi32((__m512i)x, _mm512_shuffle_epi32((__m512i)x, _MM_PERM_CDAB));
    return (ints)_mm512_max_epi32(pairs, _mm512_shuffle_epi32(pairs, _MM_PERM_BADC));
#elif defined(__AVX2__)
    __m256i pairs = _mm256_max_epi32((__m256i)x, _mm256_shuffle_epi32((__m256i)x, 0xB1));
    return (ints)_mm256_max_epi32(pairs, _mm256_shuffle_epi32(pairs, 0x4E));
#else
    ints found = x;
    for (int i = 0; i < LANES; i++)
        for (int k = 0; k < 4; k++) found[i] = x[i / 4 * 4 + k] > found[i] ? x[i / 4 * 4 + k] : found[i];
    return found;
#endif
}

/* Fixed-point inputs of one token, in this order. */
static void encode(Engine *e, const float *x, int n_in, int order, int token) {
    int half = order / 2;
    Inputs *inputs = e->inputs + token * e->n_inputs;
    for (int b = 0; b * WIDTH < n_in; b++, inputs += 2) {
        int start = block_start(b, n_in);
        for (int p = 0; p < BLOCK; p += LANES) {
            floats numbers[2];
            ints largest = {0}; /* the bits of absolute values; those of NaN are above all others */
            for (int v = 0; v < 2; v++) {
                int byte = start / 2 + p, at = byte / half * order + v * half + byte % half;
                ints bits = (ints)load(x + at);
                if (start < b * WIDTH) bits &= lanes() + at >= b * WIDTH; /* the overlap has been counted */
                numbers[v] = (floats)bits;
                bits &= 0x7fffffff;
                largest = (ints)pick(bits > largest, (floats)bits, (floats)largest);
            }
            floats peak = (floats)largest_of_four(largest);
            ints is_small = peak < 1e-20f, is_finite = peak < INFINITY;
            floats inverse = pick(is_small | ~is_finite, all(0), LARGEST / peak);
            floats unit = pick(is_small, all(0), pick(is_finite, peak / LARGEST, all(NAN)));
            for (int i = 0; i < LANES; i += 4) inputs->unit[(p + i) / 4] = unit[i];
            for (int v = 0; v < 2; v++) {
                floats rounded = numbers[v] * inverse + 12582912.0f - 12582912.0f; /* 1.5 * 2^23 */
                ints digits = (__builtin_convertvector(rounded, ints) + 0x808080) ^ 0x808080;
                for (int d = 0; d < 3; d++)
                    *(chars *)(inputs[v].digits[d] + p) = __builtin_convertvector(digits >> (16 - 8 * d), chars);
            }
        }
        bytes centres = (uint8_t)8 - (bytes){0};
        inputs->centre = -block_sum((bytes[2]){centres, centres}, inputs);
    }
    float *sums = e->group_sums + token * e->n_sums;
    for (int g = 0; g < n_in / order; g++) {
        floats sum = {0};
        for (int i = 0; i < order; i += LANES) sum += load(x + g * order + i);
        sums[g] = sum_lanes(sum);
    }
}

/* Numbers of several groups, in the lanes that belong to each. */
static inline floats spread(int n_groups, const float *numbers) {
    floats all_groups = all(numbers[0]);
    for (int g = 1; g < n_groups; g++)
        all_groups = pick(lanes() >= g * (LANES / n_groups), all(numbers[g]), all_groups);
    return all_groups;
}

/* Up to LANES numbers; the others are 0. */
static inline floats load_some(const float *x, int n) {
#if defined(__AVX512F__)
    return (floats)_mm512_maskz_loadu_ps((__mmask16)(n < 16 ? (1 << n) - 1 : -1), x);
#else
    floats some = {0};
    for (int i = 0; i < LANES && i < n; i++) some[i] = x[i];
    return some;
#endif
}

/* y[t][r] = w[r] . x[t] for R rows of codes and T tokens; a block of codes has numbers of up to 4 groups. */
static inline __attribute__((always_inline)) void dot_codes(int groups_per_block, int R, int T,
                                                            const Engine *e, const Matrix *m, int row, int token,
                                                            float *y, long y_stride) {
    int n_in = m->n_in, n_groups = n_in / m->group, shift = __builtin_ctz((unsigned)m->group);
    long row_bytes = n_in / 2;
    const uint8_t *codes = (const uint8_t *)m->codes + row * row_bytes;
    const float *scales = m->scale + (long)row * n_groups;
    const Inputs *x = e->inputs + token * e->n_inputs;
    const float *group_sums = e->group_sums + token * e->n_sums;
    floats sums[4][4], zero = {0};
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) sums[r][t] = zero;
    for (int b = 0; b * WIDTH < n_in; b++) {
        int start = block_start(b, n_in);
        for (int r = 0; r < R; r++) {
            bytes both = *(const bytes *)(codes + r * row_bytes + start / 2);
            if (T == 1) __builtin_prefetch(codes + start / 2 + 2048); /* measured: 15 to 30 % faster from memory */
            bytes parts[2] = {both & 15, both >> 4};
            floats scale = spread(groups_per_block, scales + r * n_groups + (start >> shift));
            for (int t = 0; t < T; t++) {
                const Inputs *inputs = x + t * e->n_inputs + 2 * b;
                ints sum = block_sum(parts, inputs) + inputs->centre;
                sums[r][t] += scale * inputs->unit * __builtin_convertvector(sum, floats);
            }
        }
    }
    if (m->kind == INT4_OFFSET) /* offsets are added to codes from 0 to 15, not from -8 to 7 */
        for (int g = 0; g < n_groups; g += LANES)
            for (int r = 0; r < R; r++) {
                const float *offsets = m->offset + (long)(row + r) * n_groups;
                floats offset = load_some(offsets + g, n_groups - g);
                offset += 8 * load_some(scales + r * n_groups + g, n_groups - g);
                for (int t = 0; t < T; t++)
                    sums[r][t] += offset * load(group_sums + t * e->n_sums + g);
            }
    if (R == 4 && T == 4) store_sums(sums, 0, y, y_stride);
    else
        for (int t = 0; t < T; t++)
            for (int r = 0; r < R; r++) y[t * y_stride + r] = sum_lanes(sums[r][t]);
}

enum { CODE_ROWS = LANES / 4 }; /* as many rows of sums as fit in the registers */

/* The same for any numbers of rows and tokens. */
static inline __attribute__((always_inline)) void dot_code_rows(int groups_per_block, const Engine *e,
                                                                const Matrix *m, int row, int n_rows, int token,
                                                                int n_tokens, float *y, long y_stride) {
#define TILE(R, T, t)                                                                                              \
    dot_codes(groups_per_block, R, T, e, m, row + r, token + t, y + t * y_stride + r, y_stride)
#define ROWS(T) for (; r + CODE_ROWS <= n_rows; r += CODE_ROWS) TILE(CODE_ROWS, T, 0)
    for (int n; n_tokens > 0; n_tokens -= n, token += n, y += n * y_stride) {
        n = n_tokens < TOKEN_TILE ? n_tokens : TOKEN_TILE;
        int r = 0;
        switch (n) {
        case 1: break; /* one row at a time: memory is fastest when it is read as it lies */
        case 2: ROWS(2); break;
#if TOKEN_TILE > 3
        case 3: ROWS(3); break;
#endif
        default: ROWS(TOKEN_TILE);
        }
        for (; r < n_rows; r++)
            for (int t = 0; t < n; t++) TILE(1, 1, t);
    }
#undef ROWS
#undef TILE
}

/* The same for any matrix with an order; the compiler makes a copy of the code for each size of groups. */
static void dot_quantized(const Engine *e, const Matrix *m, int row, int n_rows, int token, int n_tokens, float *y,
                          long y_stride) {
#define DOT(groups_per_block) dot_code_rows(groups_per_block, e, m, row, n_rows, token, n_tokens, y, y_stride)
    if (WIDTH / m->group == 4) DOT(4);
    else if (WIDTH / m->group == 2) DOT(2);
    else DOT(1);
#undef DOT
}

enum { ROW_BLOCK = 8 }; /* rows of weights whose segments stay in the first-level cache while all tokens pass */

/* y[t][o] = weights[o] . x[t] + bias[o], for the outputs first to last - 1 and n_tokens rows of x from row `token` on,
 * which have been encoded if the matrix has an order; y points at output `first` of that row. */
static void multiply(const Engine *e, const Matrix *m, int first, int last, const float *x, int token, int n_tokens,
                     float *y, long y_stride, float *own) {
    int n_in = m->n_in, segment = segment_of(m), n_rows = last - first;
    const float *weights = (const float *)m->codes + (long)first * n_in;
    x += (long)token * n_in;
    if (m->order) {
        for (int r = 0; r < n_rows; r += ROW_BLOCK) {
            int n = n_rows - r < ROW_BLOCK ? n_rows - r : ROW_BLOCK;
            dot_quantized(e, m, first + r, n, token, n_tokens, y + r, y_stride);
        }
    } else if (n_tokens == 1 && is_fused(m)) {
        if (m->kind == INT8) dot_codes_as_floats(INT8, m, first, n_rows, x, y);
        else dot_codes_as_floats(TABLE4, m, first, n_rows, x, y);
    } else if (n_tokens == 1 && m->kind == FLOAT32 && n_in >= LONG) { /* memory is fastest when it is read as it lies */
        for (int r = 0; r < n_rows; r++) y[r] = dot_row(weights + (long)r * n_in, x, n_in, segment);
    } else {
        for (int i = 0; i < n_in; i += segment)
            for (int r = 0; r < n_rows; r += ROW_BLOCK) {
                int n = n_rows - r < ROW_BLOCK ? n_rows - r : ROW_BLOCK;
                int width = n_in - i < segment ? n_in - i : segment;
                const float *w = weights + (long)r * n_in + i;
                if (m->kind != FLOAT32) {
                    for (int k = 0; k < n; k++) dequantize(m, first + r + k, i, width, own + (long)k * width);
                    w = own;
                }
                dot_rows(w, m->kind == FLOAT32 ? n_in : width, n, x + i, n_in, n_tokens, width, i > 0, y + r, y_stride);
            }
    }
    if (m->bias)
        for (int t = 0; t < n_tokens; t++)
            for (int o = first; o < last; o++) y[t * y_stride + o - first] += m->bias[o];
}

/* ---- The layers ---- */

static void normalize(const float *x, const Norm *norm, int n, int is_rms, float eps, float *y) {
    float mean = 0;
    if (!is_rms) {
        floats sums = {0};
        int i = 0;
        for (; i + LANES <= n; i += LANES) sums += load(x + i);
        mean = sum_lanes(sums);
        for (; i < n; i++) mean += x[i];
        mean /= n;
    }
    floats squares = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES) squares += (load(x + i) - mean) * (load(x + i) - mean);
    float variance = sum_lanes(squares);
    for (; i < n; i++) variance = fmaf(x[i] - mean, x[i] - mean, variance);
    float inverse = 1 / sqrtf(variance / n + eps);
    for (i = 0; i < n; i++) y[i] = (x[i] - mean) * inverse * norm->scale[i];
    if (norm->shift)
        for (i = 0; i < n; i++) y[i] += norm->shift[i];
}

/* Rotate the pairs (i, i + D/2) of one head's vector by its position's angles. */
static void rotate(float *v, const float *cosines, const float *sines, int head_dim) {
    for (int i = 0; i < head_dim / 2; i++) {
        float a = v[i], b = v[i + head_dim / 2];
        v[i] = a * cosines[i] - b * sines[i];
        v[i + head_dim / 2] = b * cosines[i] + a * sines[i];
    }
}

/* GELU (tanh), or SwiGLU's product with the activated gate */
static inline floats activate_floats(floats up, floats gate, int is_swiglu) {
    if (is_swiglu) return up * gate / (1 + exp_floats(-gate));
    floats z = 0.79788456f * (up + 0.044715f * up * up * up); /* (1 + tanh(z)) / 2 = 1 / (1 + exp(-2 z)) */
    return up / (1 + exp_floats(-2 * z));
}

/* The activation of the feed-forward network over n numbers, which need not be a multiple of LANES. */
static void activate(float *up, const float *gate, int n, int kind) {
    int i = 0, is_swiglu = kind == 2;
    if (kind == 1)
        for (; i < n; i++) up[i] = 0.5f * up[i] * (1 + erff(up[i] * 0.70710678f));
    for (; i + LANES <= n; i += LANES)
        store(up + i, activate_floats(load(up + i), load((is_swiglu ? gate : up) + i), is_swiglu));
    if (i < n) {
        floats u = {0}, g = {0};
        memcpy(&u, up + i, 4 * (size_t)(n - i));
        if (is_swiglu) memcpy(&g, gate + i, 4 * (size_t)(n - i));
        u = activate_floats(u, g, is_swiglu);
        memcpy(up + i, &u, 4 * (size_t)(n - i));
    }
}

static float *cache_row(float *cache, const Model *m, const Token *token, int head) {
    return cache + (((long)token->slot * m->n_kv_heads + head) * m->capacity) * m->head_dim;
}

/* Queries, keys or values of one head: projected, normalised, rotated; keys and values go to the cache. */
static void project_head(Engine *e, const Layer *layer, int unit, float *own) {
    const Model *m = &e->model;
    int D = m->head_dim, H = m->n_heads, KV = m->n_kv_heads;
    int is_query = unit < H, is_key = !is_query && unit < H + KV;
    int head = is_query ? unit : is_key ? unit - H : unit - H - KV;
    const Matrix *matrix = is_query ? &layer->query : is_key ? &layer->key : &layer->value;
    const Norm *norm = is_query ? &layer->query_norm : &layer->key_norm;
    float *y = is_query ? e->q + head * D : e->hidden + (long)(unit - H) * e->model.max_tokens * D;
    long y_stride = is_query ? (long)H * D : D;
    multiply(e, matrix, head * D, (head + 1) * D, e->normed, 0, e->n_tokens, y, y_stride, own);
    for (int t = 0; t < e->n_tokens; t++, y += y_stride) {
        const Token *token = e->tokens + t;
        if ((is_query || is_key) && norm->scale) normalize(y, norm, D, 1, m->norm_eps, y);
        if ((is_query || is_key) && m->cosines)
            rotate(y, m->cosines + (long)token->position * D, m->sines + (long)token->position * D, D);
        if (!is_query) {
            float *cache = cache_row(is_key ? layer->keys : layer->values, m, token, head);
            memcpy(cache + (long)token->position * D, y, 4 * (size_t)D);
        }
    }
}

static float largest(const float *x, int n) {
    floats highest = all(x[0]);
    int i = 0;
    for (; i + LANES <= n; i += LANES) highest = pick(load(x + i) > highest, load(x + i), highest);
    float found = highest[0];
    for (int k = 1; k < LANES; k++) found = highest[k] > found ? highest[k] : found;
    for (; i < n; i++) found = x[i] > found ? x[i] : found;
    return found;
}

/* softmax over n scores, in place */
static void softmax(float *scores, int n) {
    float best = largest(scores, n);
    floats sums = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        floats p = exp_floats(load(scores + i) - best);
        store(scores + i, p);
        sums += p;
    }
    float sum = sum_lanes(sums);
    for (; i < n; i++) {
        scores[i] = exp_floats(all(scores[i] - best))[0];
        sum += scores[i];
    }
    for (i = 0; i < n; i++) scores[i] /= sum;
}

enum { QUERIES = TOKEN_TILE }; /* tokens of one text that share a pass over its keys and values */

/* y[t] = sum over j < n[t] of p[t][j] * values[j], for `width` vectors of the values and T tokens, whose n rise. */
static inline __attribute__((always_inline)) void mix_tile(int T, int width, const float *p, long p_stride,
                                                           const float *values, const int *n, int D, float *y,
                                                           long y_stride) {
    floats sums[QUERIES][4], zero = {0};
    for (int t = 0; t < T; t++)
        for (int k = 0; k < width; k++) sums[t][k] = zero;
    for (int j = 0; j < n[0]; j++)
        for (int k = 0; k < width; k++) {
            floats value = load(values + (long)j * D + k * LANES);
            if (T > 1) KEEP_IN_REGISTER(value);
            for (int t = 0; t < T; t++) sums[t][k] += p[t * p_stride + j] * value;
        }
    for (int t = 0; t < T; t++) {
        for (int j = n[0]; j < n[t]; j++)
            for (int k = 0; k < width; k++)
                sums[t][k] += p[t * p_stride + j] * load(values + (long)j * D + k * LANES);
        for (int k = 0; k < width; k++) store(y + t * y_stride + k * LANES, sums[t][k]);
    }
}

/* The same for vectors of length D and up to QUERIES tokens. */
static void mix_values(int n_tokens, const float *p, long p_stride, const float *values, const int *n, int D, float *y,
                       long y_stride) {
#define TILE(T, width)                                                                                             \
    mix_tile(T, width, p + t * p_stride, p_stride, values + d, n + t, D, y + t * y_stride + d, y_stride)
    int d = 0, t = 0;
    for (; d + 4 * LANES <= D; d += 4 * LANES) {
        t = 0;
        if (n_tokens == QUERIES) { TILE(QUERIES, 4); t = QUERIES; }
        for (; t < n_tokens; t++) TILE(1, 4);
    }
    for (; d + LANES <= D; d += LANES)
        for (t = 0; t < n_tokens; t++) TILE(1, 1);
    for (; d < D; d++)
        for (t = 0; t < n_tokens; t++) {
            float *sum = y + t * y_stride + d;
            *sum = 0;
            for (int j = 0; j < n[t]; j++) *sum = fmaf(p[t * p_stride + j], values[(long)j * D + d], *sum);
        }
#undef TILE
}

/* Attention of one head for up to QUERIES tokens; those of one text follow each other. */
static void attend(Engine *e, const Layer *layer, int head, int first, int n_tokens, float *scores) {
    const Model *m = &e->model;
    int D = m->head_dim, kv_head = head / (m->n_heads / m->n_kv_heads);
    long q_stride = (long)m->n_heads * D;
    float scale = 1 / sqrtf((float)D);
    for (int t = first; t < first + n_tokens;) {
        int n = 1;
        while (t + n < first + n_tokens && e->tokens[t + n].slot == e->tokens[t].slot) n++;
        const Token *token = e->tokens + t;
        const float *keys = cache_row(layer->keys, m, token, kv_head), *q = e->q + t * q_stride + head * D;
        dot_rows(keys, D, token[n - 1].position + 1, q, q_stride, n, D, 0, scores, m->capacity);
        int n_keys[QUERIES];
        for (int k = 0; k < n; k++) {
            float *row = scores + (long)k * m->capacity;
            n_keys[k] = token[k].position + 1;
            for (int j = 0; j < n_keys[k]; j++) row[j] *= scale;
            softmax(row, n_keys[k]);
        }
        mix_values(n, scores, m->capacity, cache_row(layer->values, m, token, kv_head), n_keys, D,
                   e->mixed + t * q_stride + head * D, q_stride);
        t += n;
    }
}

/* Rows of outputs per unit of work: enough units to share out evenly, and long stretches of memory. */
static int unit_rows(const Engine *e, int n_out) {
    int rows = n_out / (4 * e->model.n_threads) / ROW_BLOCK * ROW_BLOCK;
    return rows < ROW_BLOCK ? ROW_BLOCK : rows;
}

/* x += matrix(input), in units of outputs */
static void add_product(Engine *e, const Matrix *matrix, const float *input, float *own) {
    const Model *m = &e->model;
    if (matrix->order) {
        FOR_UNITS(t, e->n_tokens) encode(e, input + (long)t * matrix->n_in, matrix->n_in, matrix->order, t);
        barrier(e);
    }
    int rows = unit_rows(e, m->emb_dim), n_units = (m->emb_dim + rows - 1) / rows;
    float *y = own + (long)ROW_BLOCK * (m->ff_dim > m->n_heads * m->head_dim ? m->ff_dim : m->n_heads * m->head_dim);
    FOR_UNITS(u, n_units) {
        int first = u * rows, last = first + rows < m->emb_dim ? first + rows : m->emb_dim;
        for (int t = 0; t < e->n_tokens; t += 64) { /* 64 tokens at a time, so that y stays small */
            int n = e->n_tokens - t < 64 ? e->n_tokens - t : 64;
            multiply(e, matrix, first, last, input, t, n, y, rows, own);
            for (int k = 0; k < n; k++)
                for (int o = first; o < last; o++)
                    e->x[(long)(t + k) * m->emb_dim + o] += y[k * rows + o - first];
        }
    }
    barrier(e);
}

/* The inputs of `matrix`: all tokens, normalized. */
static void normalize_all(Engine *e, const Norm *norm, const Matrix *matrix, const int32_t *rows, int n_rows) {
    const Model *m = &e->model;
    FOR_UNITS(t, n_rows) {
        float *y = e->normed + (long)t * m->emb_dim;
        normalize(e->x + (long)(rows ? rows[t] : t) * m->emb_dim, norm, m->emb_dim, m->norm_is_rms, m->norm_eps, y);
        if (matrix->order) encode(e, y, m->emb_dim, matrix->order, t);
    }
    barrier(e);
}

static void run_layer(Engine *e, const Layer *layer, float *own) {
    const Model *m = &e->model;
    normalize_all(e, &layer->norm1, &layer->query, NULL, e->n_tokens);
    FOR_UNITS(u, m->n_heads + 2 * m->n_kv_heads) project_head(e, layer, u, own);
    barrier(e);
    int n_groups = (e->n_tokens + QUERIES - 1) / QUERIES;
    FOR_UNITS(u, m->n_heads * n_groups) {
        int first = u / m->n_heads * QUERIES, n = e->n_tokens - first < QUERIES ? e->n_tokens - first : QUERIES;
        attend(e, layer, u % m->n_heads, first, n, own);
    }
    barrier(e);
    add_product(e, &layer->out, e->mixed, own);

    normalize_all(e, &layer->norm2, &layer->up, NULL, e->n_tokens);
    int rows = unit_rows(e, m->ff_dim);
    FOR_UNITS(u, (m->ff_dim + rows - 1) / rows) {
        int first = u * rows, last = first + rows < m->ff_dim ? first + rows : m->ff_dim;
        multiply(e, &layer->up, first, last, e->normed, 0, e->n_tokens, e->hidden + first, m->ff_dim, own);
        if (layer->gate.kind)
            multiply(e, &layer->gate, first, last, e->normed, 0, e->n_tokens, e->gated + first, m->ff_dim, own);
        for (int t = 0; t < e->n_tokens; t++)
            activate(e->hidden + (long)t * m->ff_dim + first, e->gated + (long)t * m->ff_dim + first, last - first,
                     m->feed_forward);
    }
    barrier(e);
    add_product(e, &layer->down, e->hidden, own);
}

/* The first id with the highest score, and its probability; NaN if a score is NaN. */
static void find_best(const float *logits, int n, int32_t *best, float *prob) {
    float highest = largest(logits, n);
    int at = 0, i = 0;
    while (at < n - 1 && logits[at] != highest) at++;
    floats sums = {0};
    for (; i + LANES <= n; i += LANES) sums += exp_floats(load(logits + i) - highest);
    float sum = sum_lanes(sums);
    for (; i < n; i++) sum += exp_floats(all(logits[i] - highest))[0];
    *best = at;
    *prob = 1 / sum;
}

/* What every thread does in one call. */
static void run(Engine *e, int thread) {
    const Model *m = &e->model;
    float *own = e->own[thread];
    int E = m->emb_dim;
    FOR_UNITS(t, e->n_tokens) {
        float *x = e->x + (long)t * E;
        dequantize(&m->embedding, e->tokens[t].id, 0, E, x);
        if (m->positions)
            for (int i = 0; i < E; i++) x[i] += m->positions[(long)e->tokens[t].position * E + i];
    }
    barrier(e);
    for (int i = 0; i < m->n_layers; i++) run_layer(e, m->layers + i, own);
    normalize_all(e, &m->final_norm, &m->head, e->wanted, e->n_wanted);
    int rows = unit_rows(e, m->vocab_size), n_units = e->n_wanted ? (m->vocab_size + rows - 1) / rows : 0;
    FOR_UNITS(u, n_units) {
        int first = u * rows, last = first + rows < m->vocab_size ? first + rows : m->vocab_size;
        multiply(e, &m->head, first, last, e->normed, 0, e->n_wanted, e->logits + first, m->vocab_size, own);
    }
    barrier(e);
    FOR_UNITS(k, e->n_wanted) find_best(e->logits + (long)k * m->vocab_size, m->vocab_size, e->best + k, e->probs + k);
    barrier(e);
}

typedef struct { Engine *engine; int thread; } Start;

/* A worker: it looks for the next call for a while, since decoding calls again at once, and then sleeps. */
static void *work(void *argument) {
    Start start = *(Start *)argument;
    free(argument);
    Engine *e = start.engine;
    for (int done = 0;;) {
        for (int spins = 0; spins < 20 * SPINS && atomic_load(&e->call) == done; spins++) relax();
        pthread_mutex_lock(&e->mutex);
        while (atomic_load(&e->call) == done && !atomic_load(&e->quit)) pthread_cond_wait(&e->wake, &e->mutex);
        pthread_mutex_unlock(&e->mutex);
        if (atomic_load(&e->quit)) return NULL;
        done++;
        run(e, start.thread);
    }
}

/* ---- What Python calls ---- */

void engine_free(Engine *e) {
    if (!e) return;
    pthread_mutex_lock(&e->mutex);
    atomic_store(&e->quit, 1);
    pthread_cond_broadcast(&e->wake);
    pthread_mutex_unlock(&e->mutex);
    for (int i = 1; e->threads && i < e->model.n_threads; i++)
        if (e->threads[i]) pthread_join(e->threads[i], NULL);
    for (int i = 0; e->own && i < e->model.n_threads; i++) free(e->own[i]);
    void *buffers[] = {e->own,    e->threads, e->wanted, e->x,      e->normed,     e->q,
                       e->mixed,  e->hidden,  e->gated,  e->inputs, e->group_sums, e};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) free(buffers[i]);
}

static float *floats_for(long n) { return aligned_alloc(64, ((size_t)n * 4 + 127) / 64 * 64); }

/* Matrices that share their inputs share the order, too, or multiply floats. */
static void choose_orders(Model *m) {
    for (int i = 0; i < m->n_layers; i++) {
        Layer *layer = m->layers + i;
        Matrix *query = &layer->query, *up = &layer->up;
        Matrix *first[] = {query, query, query, &layer->out, up, up, &layer->down};
        Matrix *all[] = {query, &layer->key, &layer->value, &layer->out, up, &layer->gate, &layer->down};
        for (int k = 0; k < 7; k++) {
            int order = input_order(all[k]);
            all[k]->order = order == input_order(first[k]) ? order : 0;
        }
    }
    m->head.order = input_order(&m->head);
}

/* NULL when memory or threads run out. The weights and the cache stay Python's, the layers' list is read here. */
Engine *engine_new(const Model *model) {
    Engine *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    e->model = *model;
    choose_orders(&e->model);
    const Model *m = &e->model;
    pthread_mutex_init(&e->mutex, NULL);
    pthread_cond_init(&e->wake, NULL);
    long T = m->max_tokens, E = m->emb_dim, A = (long)m->n_heads * m->head_dim, F = m->ff_dim;
    long kv = 2L * m->n_kv_heads * m->head_dim, widest = F > A ? F : A;
    widest = widest > E ? widest : E;
    e->threads = calloc((size_t)m->n_threads, sizeof *e->threads);
    e->own = calloc((size_t)m->n_threads, sizeof *e->own);
    e->wanted = calloc((size_t)T, sizeof *e->wanted);
    e->x = floats_for(T * E);
    e->normed = floats_for(T * E);
    e->q = floats_for(T * A);
    e->mixed = floats_for(T * A);
    e->hidden = floats_for(T * (F > kv ? F : kv));
    e->gated = floats_for(T * F);
    e->n_inputs = widest / BLOCK + 2;
    e->n_sums = widest / 32 + LANES; /* groups of 32 are the smallest, and sums are read LANES at a time */
    e->inputs = aligned_alloc(64, (size_t)(T * e->n_inputs) * sizeof(Inputs));
    e->group_sums = floats_for(T * e->n_sums);
    if (e->group_sums) memset(e->group_sums, 0, (size_t)(T * e->n_sums) * 4);
    int is_whole = e->threads && e->own && e->wanted && e->x && e->normed && e->q && e->mixed && e->hidden &&
                   e->gated && e->inputs && e->group_sums;
    for (int i = 0; is_whole && i < m->n_threads; i++) {
        long n_scores = (long)QUERIES * m->capacity, n_weights = ROW_BLOCK * widest + 64 * (E + ROW_BLOCK);
        e->own[i] = floats_for(n_scores > n_weights ? n_scores : n_weights);
        is_whole = e->own[i] != NULL;
    }
    for (int i = 1; is_whole && i < m->n_threads; i++) {
        Start *start = malloc(sizeof *start);
        if (start) *start = (Start){e, i};
        is_whole = start && pthread_create(&e->threads[i], NULL, work, start) == 0;
        if (!is_whole) { e->threads[i] = 0; free(start); }
    }
    if (!is_whole) { engine_free(e); return NULL; }
    return e;
}

/* Logits (number of tokens that want them, V), in the order of the tokens, and of each the best id and its
 * probability. Tokens of one text come in order. */
void engine_forward(Engine *e, const Token *tokens, int32_t n_tokens, float *logits, int32_t *best, float *probs) {
    e->tokens = tokens;
    e->n_tokens = n_tokens;
    e->logits = logits;
    e->best = best;
    e->probs = probs;
    e->n_wanted = 0;
    for (int t = 0; t < n_tokens; t++)
        if (tokens[t].wants_logits) e->wanted[e->n_wanted++] = t;
    pthread_mutex_lock(&e->mutex);
    atomic_fetch_add(&e->call, 1);
    pthread_cond_broadcast(&e->wake);
    pthread_mutex_unlock(&e->mutex);
    run(e, 0);
}
