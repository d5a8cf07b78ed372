# tiny.sh -- a set and a model small enough to train in a moment: rows.jsonl, tok.json, set/, tiny.json
# in the current folder.  Sourced by the tests of tools that need a model.
seq 1 60 | awk '{printf "{\"id\":\"r%d\",\"prompt\":\"count %d\",\"response\":\" and %d then %d\"}\n", $1, $1, $1+1, $1*2}' >rows.jsonl
cat >tiny.json <<'END'
{"model_type":"mixtral","hidden_size":16,"num_hidden_layers":2,"num_attention_heads":4,
"num_key_value_heads":2,"num_local_experts":4,"num_experts_per_tok":2,"intermediate_size":12,
"vocab_size":340,"max_position_embeddings":64,"rope_theta":10000.0,"rms_norm_eps":1e-5,
"initializer_range":0.1,"tie_word_embeddings":false,"router_aux_loss_coef":0.02,"hidden_act":"silu"}
END
tok-train -q --vocab 340 -o tok.json rows.jsonl
shard-pack -q -t tok.json --seq 32 -o set/ rows.jsonl
