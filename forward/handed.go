package forward

import (
	"context"
	"errors"
	"time"
)

// HandedOver is the cause with which the context of an engine's Run ends when another process
// has its sockets: what is open here finishes here, in its own time, and nobody is
// hurried who waits for a next request, since that may be on its way.
type HandedOver struct {
	// Limit is how long that may take.
	Limit time.Duration
}

// Error implements error.
func (HandedOver) Error() string { return "handed over to another process" }

// Linger returns Limit, for those who do not know this package.
func (h HandedOver) Linger() time.Duration { return h.Limit }

// Closing is the cause with which the context of an engine's Run ends when it is to end within a
// time, instead of that of its options.
type Closing struct {
	// Limit is how long connections may take to end.
	Limit time.Duration
}

// Error implements error.
func (Closing) Error() string { return "closing" }

// Drain returns how long what is open may take now that ctx has ended, d if its cause is neither HandedOver nor
// Closing, and whether it was handed over.
func Drain(ctx context.Context, d time.Duration) (limit time.Duration, handed bool) {
	var h HandedOver
	if errors.As(context.Cause(ctx), &h) {
		return h.Limit, true
	}
	var c Closing
	if errors.As(context.Cause(ctx), &c) {
		return c.Limit, false
	}
	return d, false
}
