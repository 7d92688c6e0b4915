package cli

import (
	"context"
	"iter"

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
