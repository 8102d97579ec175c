// Package formats finds credentials by their form: the tokens of known issuers, and assignments that look like one.
// What it looks for is given by rules in the format of gitleaks; [Default] returns those of that project.
//
// A [Set] is compiled once. All keywords of all rules become one automaton, whose table is walked in eight interleaved
// lanes, so that the processor's wait for one lane's memory is another lane's time. Where a keyword ends, the rule's own
// expression is tried from where a match would have to begin, by an automaton that is built as it is used (Cox, "Regular
// Expression Matching in the Wild", 2010). Only what that accepts is looked at in full: which part is the secret, whether
// it is random enough, whether a list allows it, and whether it is well formed where its issuer gave it a checksum.
//
// A [Stream] gives the same result however its bytes are cut, and holds back only bytes that may still turn out to belong
// to a secret.
package formats
