set -e
# what made these files, at commit 2ed6392
tipl collect InvertedPendulum-v4 --out paths --num-trials 4 --total-steps 768 --hidden-sizes 5 4 \
    --seed 3 \
    --ppo.num-steps 128 --ppo.num-minibatches 2 --ppo.update-epochs 2
tipl collect InvertedPendulum-v4 --out varied --num-trials 2 --total-steps 256 --hidden-sizes 3 \
    --networks actor+critic --normaliser running --vary gravity=0.7..1.4 \
    --ppo.num-steps 128 --ppo.num-minibatches 2 --ppo.update-epochs 2
tipl paths evaluate paths --episodes 1 --threads 1
small="--num-steps 3 --batch-size 4 --width 8 --heads 2 --held-out 0.5 --threads 1"
tipl train paths --out path-transformer --model path --rank 4 --depth 1 $small
tipl train paths --out neuron-transformer --model neuron --memory 16 --fresh-widths 8 4 \
    --fresh-depths 1 2 --rounds 1 $small
tipl train paths --out wnn --model wnn $small
tipl train paths --out nino --model nino $small
tipl forecast path-transformer neuron-transformer wnn nino --paths paths --out forecasts \
    --starts 0 0.5 --horizons 1
tipl evaluate forecasts --episodes 1 --threads 1
tipl optimize neuron-transformer --out policy --seed 2
tipl accelerate InvertedPendulum-v4 --out run --num-trials 2 --total-steps 4096 --widths 4 \
    --threads 1
# of run: comparison.json, results.jsonl and stages.json are kept, and every fifth line of
# forecasts/results.jsonl; the dataset of forecasts/forecasts.json is named "paths"
