package root

import "fmt"

// ErrNeedsPeople is the [ErrRefused] of a root that wraps by itself and opens
// with people alone: no configuration changes that, so that it is no fault.
var ErrNeedsPeople = fmt.Errorf("%w: it opens with people alone", ErrRefused)
