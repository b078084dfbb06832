// Package handover is how a running pharos gives its sockets to the process that
// replaces it: a connection between the two that carries messages and open files,
// a look at which listening sockets this process has, and the sockets that this
// process was given.
//
// What a process inherits is a fact of the process, as its environment is, and what
// binds an address is spread over every tier: so inherited sockets are kept here, and
// whoever binds asks Take first.
//
//	if f := handover.Take("tcp", addr.String()); f != nil { … } // else bind
//
// It decides nothing about when to give or take; package node does. It never closes a
// socket that somebody has taken.
package handover
