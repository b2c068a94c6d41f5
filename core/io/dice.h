/* dice.h: a row of random numbers for one item (an image, a record), read one after the other from
 * Philox blocks. What an item gets does not depend on who draws it, or on what others drew. */
#ifndef RESIN_IO_DICE_H
#define RESIN_IO_DICE_H

#include "core/base/random.h"

#include <stdint.h>

typedef struct resin_dice {
    uint64_t key, item, block;
    int left; /* numbers of `numbers` not handed out yet */
    uint32_t numbers[4];
} resin_dice;

static inline resin_dice resin_dice_start(uint64_t key, uint64_t item) {
    return (resin_dice){.key = key, .item = item};
}

static inline uint32_t resin_dice_bits(resin_dice *dice) {
    if (dice->left == 0) {
        resin_philox(dice->key, dice->item, dice->block++, dice->numbers);
        dice->left = 4;
    }
    return dice->numbers[4 - dice->left--];
}

/* Uniform in [low, high). */
static inline double resin_dice_between(resin_dice *dice, double low, double high) {
    return low + (high - low) * (resin_dice_bits(dice) * (1.0 / 4294967296.0));
}

/* Uniform among 0 .. count - 1, 1 <= count < 2^32: the high word of a 32 x 32 bit product. The
 * bias is below count / 2^32. */
static inline uint32_t resin_dice_below(resin_dice *dice, uint32_t count) {
    return (uint32_t)(((uint64_t)resin_dice_bits(dice) * count) >> 32);
}

#endif
