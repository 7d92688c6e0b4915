package main

import (
	"context"
	"time"
)

// testContext bounds what a test waits for.
func testContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 30*time.Second)
}
