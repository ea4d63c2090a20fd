// Run an exported folder of kind `raw` on ncnn, from an Android app through the NDK.
#include <net.h>

#include "boxes.hpp"

// Load model.ncnn.param and model.ncnn.bin. The network computes in float32, as it did when the
// export was verified.
bool load(ncnn::Net& net, const char* param, const char* bin) {
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = false;
    return net.load_param(param) == 0 && net.load_model(bin) == 0;
}

// Detect in an upright RGBA image of image_width x image_height. The network takes an RGB image of
// width x height. The returned boxes are in pixels of the network's input. To get pixels of the
// RGBA image, multiply x by image_width / width, and y by image_height / height.
std::vector<Box> detect(const ncnn::Net& net, const unsigned char* rgba, int image_width,
                        int image_height, int width, int height,
                        const Postprocess& postprocess) {
    const auto image = ncnn::Mat::from_pixels_resize(rgba, ncnn::Mat::PIXEL_RGBA2RGB, image_width,
                                                     image_height, width, height);
    auto extractor = net.create_extractor();
    extractor.input("in0", image);
    ncnn::Mat boxes, scores;  // one row per anchor: (x1, y1, x2, y2) in boxes, the class scores in scores
    extractor.extract("out0", boxes);
    extractor.extract("out1", scores);
    return decode(boxes, scores, scores.h, scores.w, postprocess);
}
