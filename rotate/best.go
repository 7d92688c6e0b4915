package rotate

import "slices"

// best keeps the first few of many, in the order of compare.
type best[T any] struct {
	limit   int
	compare func(a, b T) int
	kept    []T
	// full tells that limit of them are kept, in order, before those that came since.
	full bool
}

func (b *best[T]) add(item T) {
	if b.limit <= 0 || b.full && b.compare(item, b.kept[b.limit-1]) >= 0 {
		return
	}
	b.kept = append(b.kept, item)
	if len(b.kept) >= 2*b.limit {
		b.trim()
	}
}

func (b *best[T]) trim() {
	slices.SortFunc(b.kept, b.compare)
	if len(b.kept) >= b.limit {
		clear(b.kept[b.limit:])
		b.kept, b.full = b.kept[:b.limit], true
	}
}

// first returns at most n of what was kept, in order.
func (b *best[T]) first(n int) []T {
	if b.limit > 0 {
		b.trim()
	}
	return b.kept[:min(max(n, 0), len(b.kept))]
}
