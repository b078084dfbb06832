// Package wire reads DNS queries and assembles responses on bytes.
//
// [Parse] takes a datagram or TCP message apart into a [Query] that its caller
// owns and uses again; a [Builder] appends the response to a buffer that its
// caller owns and uses again. Neither allocates, blocks, logs or keeps state
// between messages, and no input makes them panic.
//
// The package never decides what the answer is: package dnslb, its only caller
// besides package zone (which shares [Name]), looks that up and hands compiled
// records to the Builder.
//
//	var q wire.Query
//	var b wire.Builder
//	if rcode, ok := wire.Parse(msg, &q); ok && rcode == wire.NoError {
//		b.Begin(out, &q, 1232)
//		b.RRset(wire.Answer, wire.QuestionOwner, set, 1)
//		reply = b.Finish(wire.Reply{Authoritative: true}, wire.Options{}, 1232)
//	}
package wire
