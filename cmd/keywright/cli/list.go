package cli

import (
	"context"
	"iter"
	"strings"

	"keywright.dev/kms/api"
)

// everything goes through all pages of a list.
func everything[T any](ctx context.Context, p *Program, query api.ListQuery,
	page func(*api.OperatorClient, context.Context, api.ListQuery) (api.Page[T], error),
) iter.Seq2[T, error] {
	return api.All(query, func(q api.ListQuery) (api.Page[T], error) {
		return call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (api.Page[T], error) {
			return page(o, ctx, q)
		})
	})
}

// counted counts the items that a list yields.
func counted[T any](list iter.Seq2[T, error], count *int) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for item, err := range list {
			*count++
			if !yield(item, err) {
				return
			}
		}
	}
}

// everythingOf is everything of the machine that the query names, which it names
// in errors as well.
func everythingOf[T any](ctx context.Context, p *Program, query api.ListQuery,
	page func(*api.OperatorClient, context.Context, api.ListQuery) (api.Page[T], error),
) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for item, err := range everything(ctx, p, query, page) {
			if err != nil && query.Machine != "" {
				err = &about{"machine/" + strings.TrimPrefix(query.Machine, "machine/"), err}
			}
			if !yield(item, err) {
				return
			}
		}
	}
}
