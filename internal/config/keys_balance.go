package config

import (
	"regexp"
	"strings"
	"time"
)

// wordAuto is the algorithm that nobody chose.
const wordAuto = "auto"

// balanceWords are the algorithms that share a pool's work.
func balanceWords() []string {
	return []string{wordAuto, "p2c", "ewma", "round-robin", "least", "maglev", "bounded", "ring", "source"}
}

// keyedWords are those of which the key can be chosen.
func keyedWords() []string { return []string{"maglev", "bounded", "ring"} }

// hashingWords are those whose tables are the same on every node.
func hashingWords() []string { return append(keyedWords(), "source") }

func balanceKeys() *shape {
	return object(
		with("by", one(enum("an algorithm", balanceWords()...)), wordAuto,
			"p2c and ewma: the better of two drawn by weight, by load, or load times latency. round-robin; least (load). "+
				"maglev, bounded (maglev with bounded loads) and ring (as nginx) hash key; source hashes the client's address. auto: p2c, and maglev for datagrams"),
		may("key", one(hashKey()),
			`What maglev, bounded and ring hash: client (the address), flow (addresses and ports), path, host, "header:NAME" or "cookie:NAME". Default: client`),
		with("load", one(number("load", 1.01, 100)), defaultLoad, "How much more than the average a backend may carry with bounded"),
	).orShort(enum("an algorithm", balanceWords()...))
}

func limitKeys() *shape {
	return object(
		may("per_backend", one(integer("per_backend", 1, 1_000_000)), "Connections (tcp) or requests (http) that a backend has at a time, from each node. Default: any number"),
		with("queue", one(integer("queue", 0, 100_000)), 0, "How many wait while every backend has that many"),
		with("wait", one(duration("wait", time.Millisecond, time.Minute, time.Millisecond)), defaultLimitWait, "How long they wait at most"),
		may("rate", one(integer("rate", 1, maxConnections)), "New connections (tcp), sessions (udp) and requests (http) a second that the service takes at each node, over all listeners, with a burst of one second. Default: any number"),
	)
}

func ejectKeys() *shape {
	return object(
		with("errors", one(integer("errors", 0, 1000)), defaultEjectErrors, "So many failures in a row eject a backend; 0: they do not"),
		may("success_rate", one(number("success_rate", 0.01, 1)), "Eject a backend whose share of successes is less than this share of the pool's median"),
		may("latency", one(number("latency", 1.1, 1000)), "Eject a backend that is this many times slower than the pool's median"),
		with("window", one(duration("window", time.Second, time.Hour, time.Millisecond)), defaultEjectWindow, "How long outcomes are counted for success_rate and latency"),
		with("min_work", one(integer("min_work", 1, 1_000_000)), defaultEjectMinWork, "How many outcomes a window needs to count for a backend"),
		with("for", one(duration("for", minFor, maxFor, time.Millisecond)), defaultEjectFor, "How long the first ejection lasts; each further one doubles it"),
		with("max_for", one(duration("max_for", minFor, maxFor, time.Millisecond)), defaultEjectMax, "How long one lasts at most"),
		with("max_share", one(number("max_share", 0, 1)), defaultEjectShare, "The share of the active backends that are ejected at most; one always may be, of two or more"),
	).orShort(boolean())
}

// A keyWord is what is hashed, as it is written.
type keyWord struct{ kind, name string }

var keyPattern = regexp.MustCompile(`^(client|flow|path|host|header:[!#$%&'*+.^_|~0-9A-Za-z-]{1,64}|cookie:[!#$%&'*+.^_|~0-9A-Za-z-]{1,64})$`)

// hashKey is what a balancing algorithm hashes.
func hashKey() *scalar {
	return &scalar{noun: "a key", kind: kindString, pattern: keyPattern.String(), example: "client", read: func(s string) (any, *problem) {
		if !keyPattern.MatchString(s) {
			return nil, refuse(`%q is not a key: client, flow, path, host, "header:NAME" or "cookie:NAME"`, clip(s))
		}
		kind, name, _ := strings.Cut(s, ":")
		return keyWord{kind, name}, nil
	}}
}
